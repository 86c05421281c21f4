"""What must hold on a GPU: the pixels are the CPU's, to one step of 255, and a batch that is kept stays as it is."""

from pathlib import Path

import numpy as np
import pytest
import torch

from fastpets import Loader
from fastpets.items import from_folder

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch sees none"),
]


def loader(sample: Path, device: str, **settings: object) -> Loader:
    items = from_folder(sample).select(np.arange(0, 480, 5))
    scale = {"mean": (0,) * 3, "std": (1 / 255,) * 3}
    return Loader(items, size=64, batch_size=16, augment=True, drop_last=False, device=device, **scale, **settings)


def test_a_gpu_gives_the_cpus_pixels_to_a_step(sample: Path) -> None:
    for on_gpu, on_cpu in zip(loader(sample, "cuda"), loader(sample, "cpu"), strict=True):
        assert (on_gpu.ids == on_cpu.ids).all()
        assert on_gpu.images.is_contiguous(memory_format=torch.channels_last)
        assert torch.equal(on_gpu.labels.cpu(), on_cpu.labels)
        # Decoders differ by less than a step on average (IDCT and chroma upsampling round in other places).
        assert (on_gpu.images.cpu() - on_cpu.images).abs().mean() < 1


def test_batches_that_somebody_keeps_are_not_overwritten(sample: Path) -> None:
    kept = [(batch, batch.images.clone()) for batch in loader(sample, "cuda")]
    list(loader(sample, "cuda"))
    assert all(torch.equal(batch.images, copy) for batch, copy in kept)


@pytest.mark.parametrize("where", ["host", "device"])
def test_cached_epochs_have_the_uncached_ones_pixels(sample: Path, where: str) -> None:
    cached, uncached = loader(sample, "cuda", cache=where), loader(sample, "cuda")
    for _ in range(3):
        for found, expected in zip(cached, uncached, strict=True):
            assert torch.equal(found.images, expected.images)
    assert cached.cache.filled.all()
