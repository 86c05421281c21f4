"""Training on a GPU. Most tests also run on the CPU, so that they are exercised on machines without a GPU."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastpets import Learner, Loader
from fastpets.data.dataset import ImageDataset
from fastpets.data.sources import from_folder
from fastpets.errors import FastpetsError
from fastpets.models.classifier import create_model
from fastpets.training.options import TrainingOptions
from fastpets.training.phases import Phase
from tests.callbacks import Stopped, Stops
from tests.devices import DEVICES, GPU


@pytest.fixture
def dataset(sample: Path) -> ImageDataset:
    return from_folder(sample).select(np.arange(0, 480, 5))


def learner(dataset: ImageDataset, device: str, size: int = 64, batch_size: int = 16, **options: Any) -> Learner:
    train, valid = (
        Loader(dataset, size=size, batch_size=batch_size, augment=trains, device=device) for trains in (True, False)
    )
    model = create_model("resnet18", len(dataset.classes), "none")
    return Learner(train, valid, model, TrainingOptions(**options), print_epochs=False)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("amp_dtype", [None, "bfloat16", pytest.param("float16", marks=GPU)], ids=str)
def test_training_learns_and_measures_its_waiting_time(
    dataset: ImageDataset, device: str, amp_dtype: str | None
) -> None:
    if (device, amp_dtype) == ("cpu", "float16"):
        pytest.skip("CPUs do not train in float16")
    if (device, amp_dtype) == ("cuda", "bfloat16") and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bfloat16 instructions")
    made = learner(dataset, device, amp=amp_dtype is not None, amp_dtype=amp_dtype or "auto")
    made.fit([Phase(name="one cycle", epochs=3, lr=1e-3)])
    first, *_, last = made.history
    assert last.train_loss < first.train_loss
    assert len(made.recorder.losses) == 3 * len(made.train)
    assert all(0 <= result.input_share <= 1 and result.images_per_sec > 0 for result in made.history)


@pytest.mark.parametrize("device", DEVICES)
def test_a_fit_resumed_from_its_state_takes_the_same_steps(dataset: ImageDataset, device: str) -> None:
    """Equal up to float32's rounding, as a GPU may add in any order; a missing state changes the loss by far more."""
    phases = [Phase(name="one cycle", epochs=2, lr=1e-3)]
    whole, part, rest = (learner(dataset, device) for _ in range(3))
    whole.fit(phases)
    part.callbacks = [Stops(at=3)]
    with pytest.raises(Stopped):
        part.fit(phases)
    rest.load_state_dict(part.state_dict())
    rest.fit(phases, resume=True)
    assert rest.recorder.losses == pytest.approx(whole.recorder.losses, rel=0.02 if device == "cuda" else 1e-5)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("mix", ["mixup", "cutmix"])
def test_training_learns_with_mixed_images_and_averages_the_weights_of_all_steps(
    dataset: ImageDataset, device: str, mix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, expected = learner(dataset, device, mix=mix, ema=0.7), []
    step = made.train_step.optimizer_step

    def spy() -> bool:
        counts = step()
        weight = made.model.head[-1].weight.detach()
        expected.append(0.7 * expected[-1] + 0.3 * weight if expected else weight.clone())
        return counts

    monkeypatch.setattr(made.train_step, "optimizer_step", spy)
    made.fit([Phase(name="one cycle", epochs=3, lr=1e-3)])
    first, *_, last = made.history
    assert last.train_loss < first.train_loss
    assert len(expected) == 3 * len(made.train)
    torch.testing.assert_close(made.train_step.evaluated_model.head[-1].weight.detach(), expected[-1])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch sees none")
def test_out_of_memory_is_reported_with_a_batch_size_that_fits(dataset: ImageDataset) -> None:
    made = learner(dataset, "cuda", size=512, batch_size=64)
    torch.cuda.empty_cache()
    total = torch.cuda.mem_get_info()[1]
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**31) / total)  # 2 GiB more
    try:
        with pytest.raises(FastpetsError, match=r"out of memory at a batch size of 64, 512 x 512 px; \d+ fits"):
            made.fit([Phase(name="one cycle", epochs=1, lr=1e-3)])
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
