"""The specification of a Loader: one image at a time, with Pillow, in float64. Tests compare Loader with it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

from fastpets.augment.lookup_tables import luts
from fastpets.augment.policy import as_policy
from fastpets.augment.preprocessing import Preprocessing
from fastpets.augment.transforms import transforms
from fastpets.data import storage
from fastpets.data.headers import scan_headers
from fastpets.data.image import decode_rgb
from fastpets.data.sources import as_dataset
from fastpets.kernels import reference as kernels
from fastpets.loading.batch import Batch
from fastpets.loading.planning import REPLACEMENT
from fastpets.loading.sampler import make_sampler


class ReferenceLoader:
    """A Loader without threads, cache or fast kernels. It takes those of its arguments that affect pixels or order."""

    def __init__(self, source: Any, augment: Any = False, on_bad_file: str = "raise", **more: Any) -> None:
        fields = {name: more.pop(name) for name in Preprocessing.__dataclass_fields__ if name in more}
        self.preprocessing, self.augment = Preprocessing(**fields), as_policy(augment)
        self.dataset, self.on_bad_file = as_dataset(source), on_bad_file
        headers = scan_headers(self.dataset.paths, self.dataset.root, num_workers=1)
        usable = headers.limited(self.preprocessing.max_pixels).usable
        self.sampler = make_sampler(self.dataset, usable, trains=self.augment is not None, **more)

    def __iter__(self) -> Iterator[Batch]:
        plan = self.sampler.start_epoch()
        for batch in plan.batches:
            pairs = zip(plan.ids[batch].tolist(), plan.occurrences[batch].tolist(), strict=True)
            loaded = [self.load(i, occurrence, plan.epoch) for i, occurrence in pairs]
            if good := [each for each in loaded if each is not None]:
                images, ids = torch.cat([image for image, _ in good]), np.array([i for _, i in good])
                images = images if self.preprocessing.layout == "NHWC" else images.permute(0, 3, 1, 2)
                yield Batch(images, torch.from_numpy(self.dataset.labels[ids]), ids)

    def load(self, i: int, occurrence: int, epoch: int) -> tuple[torch.Tensor, int] | None:
        """Loads an item as an image (1, H, W, 3), with its id; of a bad file, the next good item's, or None to skip."""
        try:
            if not self.sampler.usable[i]:
                raise OSError("bad header")
            image = torch.from_numpy(np.array(decode_rgb(storage.read(self.dataset.paths[i]))))
        except Exception:
            if self.on_bad_file == "raise":
                raise
            other = (i + 1) % len(self.dataset), occurrence | REPLACEMENT, epoch
            return self.load(*other) if self.on_bad_file == "replace" else None
        key: Any = {"seed": self.sampler.seed, "epoch": epoch, "occurrences": np.array([occurrence])}
        one_image = np.array([i]), np.array([image.shape[0]]), np.array([image.shape[1]])
        composed = transforms(*one_image, self.preprocessing, augment=self.augment, **key)
        table = torch.from_numpy(luts(composed.adjustments, self.preprocessing.normalization))
        shrunk = kernels.shrink(image, *composed.shrink[0].tolist())
        matrix, samples, spread = map(torch.from_numpy, composed[:3])
        warped = kernels.warp([shrunk], matrix, samples, spread, self.preprocessing.size, self.preprocessing.borders)
        return kernels.look_up(warped.round().byte(), table.to(getattr(torch, self.preprocessing.dtype))), i
