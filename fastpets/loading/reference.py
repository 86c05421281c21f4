"""What a Loader delivers, as plainly as it can be said: one image at a time, Pillow, float64. Tests compare with it."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch

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
    """A Loader without threads, DALI, cache or kernels; its arguments are a Loader's."""

    def __init__(self, source: Any, augment: Any = False, on_bad_file: str = "raise", **more: Any) -> None:
        seen = {name: more.pop(name) for name in Preprocessing.__dataclass_fields__ if name in more}
        self.preprocessing, self.augment, self.on_bad_file = Preprocessing(**seen), as_policy(augment), on_bad_file
        self.dataset, trains = as_dataset(source), self.augment is not None
        headers = scan_headers(self.dataset.paths, self.dataset.root, num_workers=1)
        usable = headers.limited(self.preprocessing.max_pixels).usable
        self.sampler = make_sampler(self.dataset, usable, trains=trains, **more)

    def __iter__(self) -> Iterator[Batch]:
        plan = self.sampler.start_epoch()
        for batch in plan.batches:
            pairs = zip(plan.ids[batch].tolist(), plan.occurrences[batch].tolist(), strict=True)
            if rows := [row for pair in pairs if (row := self.row(*pair, plan.epoch))]:
                images, ids = torch.cat([image for image, _ in rows]), np.array([i for _, i in rows])
                images = images if self.preprocessing.layout == "NHWC" else images.permute(0, 3, 1, 2)
                yield Batch(images, torch.from_numpy(self.dataset.labels[ids]), ids)

    def row(self, i: int, occurrence: int, epoch: int) -> tuple[torch.Tensor, int] | None:
        """An item's image (1, H, W, 3) and id; the next good item's in place of a bad one, or None to skip it."""
        try:
            if not self.sampler.usable[i]:
                raise OSError("bad header")
            image = torch.from_numpy(np.array(decode_rgb(storage.read(self.dataset.paths[i]))))
        except Exception:
            if self.on_bad_file == "raise":
                raise
            other = (i + 1) % len(self.dataset), occurrence | REPLACEMENT, epoch
            return self.row(*other) if self.on_bad_file == "replace" else None
        (height, width), seen = image.shape[:2], self.preprocessing
        key: Any = {"seed": self.sampler.seed, "epoch": epoch, "occurrences": np.array([occurrence])}
        todo = transforms(np.array([i]), np.array([height]), np.array([width]), seen, augment=self.augment, **key)
        matrix, samples, spread, luts = map(torch.from_numpy, todo[:4])
        small = kernels.shrink(image, *todo.shrink[0].tolist())
        warped = kernels.warp([small], matrix, samples, spread, seen.size, seen.borders).round().byte()
        return kernels.look_up(warped, luts.to(getattr(torch, seen.dtype))), i
