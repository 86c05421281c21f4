"""A loader in plain OpenCV, with the whole augmentation of fastai's chapter on pet breeds (README.md).

Each image is decoded, warped to its output by one composed matrix, and looked up in one table of brightness, contrast
and normalisation. Points are columns (x, y, 1). The canvas is the square region that is kept of an image, [-1, 1] on
both axes. Pixel i of an image or of the output has its centre at i, as in OpenCV.
"""

from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch

from fastpets.augment.policy import Augment
from fastpets.augment.preprocessing import IMAGENET_MEAN, IMAGENET_STD

BATCHES_AHEAD = 3


class OpenCVLoader:
    """Loads batches in a thread pool, some batches ahead; each thread makes a part of every batch.

    Large images are not shrunk first, so those of more than twice the output's size are aliased. This is less work
    than fastpets does.
    """

    def __init__(
        self, paths: Sequence[str], labels: Sequence[int], num_workers: int, *, size: int, batch_size: int
    ) -> None:
        self.paths, self.labels = paths, torch.tensor(labels)
        self.num_workers, self.size, self.batch_size = num_workers, size, batch_size
        self.generator = np.random.default_rng(0)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        import cv2

        ids = self.generator.permutation(len(self.paths))
        waiting = deque(np.split(ids, range(self.batch_size, len(ids), self.batch_size)))
        under_way: deque[tuple[np.ndarray, np.ndarray, list[Future[None]]]] = deque()
        own_threads = cv2.getNumThreads()
        cv2.setNumThreads(1)  # the pool keeps all processors busy already
        try:
            with ThreadPoolExecutor(self.num_workers) as pool:
                while waiting or under_way:
                    while waiting and len(under_way) < BATCHES_AHEAD:
                        under_way.append(self._submit(pool, waiting.popleft()))
                    ids, images, parts = under_way.popleft()
                    for part in parts:
                        part.result()
                    yield torch.from_numpy(images).permute(0, 3, 1, 2), self.labels[ids]
        finally:
            cv2.setNumThreads(own_threads)

    def _submit(self, pool: ThreadPoolExecutor, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray, list[Future[None]]]:
        """Returns a batch's ids, the array for its images (B, S, S, 3) float32, and a future for each thread's part."""
        images = np.empty((len(ids), self.size, self.size, 3), np.float32)
        drawn = draw(len(ids), self.size, self.generator)
        jobs = list(zip((self.paths[i] for i in ids), images, *drawn, strict=True))
        shares = (jobs[first :: self.num_workers] for first in range(self.num_workers))
        return ids, images, [pool.submit(self._load, share) for share in shares]

    def _load(self, images: list[tuple[str, np.ndarray, np.ndarray, np.ndarray, np.ndarray]]) -> None:
        """Loads images from tuples of a path, the output (S, S, 3), and the three random parameters from `draw`."""
        import cv2

        for path, image, place, canvas_from_output, lut in images:
            source = cv2.imdecode(np.fromfile(path, np.uint8), cv2.IMREAD_COLOR)
            height, width = source.shape[:2]
            half = min(height, width) / 2
            x, y = place * (width - 2 * half, height - 2 * half) + half - 0.5
            source_from_canvas = np.array([[half, 0, x], [0, half, y], [0, 0, 1]])
            warped = cv2.warpPerspective(
                source,
                source_from_canvas @ canvas_from_output,
                (self.size, self.size),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REFLECT,
            )
            # BGR to RGB here and not in the decoder: there are fewer pixels.
            cv2.LUT(cv2.cvtColor(warped, cv2.COLOR_BGR2RGB), lut, dst=image)


def draw(count: int, size: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws random parameters of `count` images at once, as small arrays cost NumPy as much time as larger ones.

    Returns the canvas's position (B, 2) along the sides (0-1), canvas_from_output (B, 3, 3) and LUTs (B, 256, 1, 3)
    float32.
    """
    augment = Augment()

    def maybe(probability: float, low: float, high: float, neutral: float) -> np.ndarray:
        return np.where(generator.random(count) < probability, generator.uniform(low, high, count), neutral)

    x, y = (maybe(augment.p_affine, -augment.max_warp, augment.max_warp, 0) for _ in range(2))
    # Moves each corner (s, t) of the canvas to (s (1 - y t), t (1 - x s)): a perspective from one side.
    warped_from_canvas = _matrices([[1 - y * y, -x * y, x], [-x * y, 1 - x * x, y], [x, y, 1]])
    angle = np.deg2rad(maybe(augment.p_affine, -augment.max_rotate, augment.max_rotate, 0))
    mirror = np.where(generator.random(count) < augment.p_flip, -1, 1)
    cos, sin = np.cos(angle), np.sin(angle)
    turn = _matrices([[mirror * cos, mirror * sin, 0], [-sin, cos, 0], [0, 0, 1]])
    zoomed = _part(1 / maybe(augment.p_affine, 1, augment.max_zoom, 1), generator)
    cropped = _part(np.sqrt(generator.uniform(augment.min_scale, 1, count)), generator)
    crop_from_output = np.array([[2 / size, 0, 1 / size - 1], [0, 2 / size, 1 / size - 1], [0, 0, 1]])
    canvas_from_output = np.linalg.inv(warped_from_canvas) @ turn @ zoomed @ cropped @ crop_from_output

    brightness = maybe(augment.p_lighting, 0.5 - augment.max_brightness / 2, 0.5 + augment.max_brightness / 2, 0.5)
    most = -np.log(1 - augment.max_contrast)
    contrast = np.exp(maybe(augment.p_lighting, -most, most, 0))
    values = np.clip(np.arange(256) / 255, 1e-7, 1 - 1e-7)
    logits = np.log(values / (1 - values)) + np.log(brightness / (1 - brightness))[:, None]
    lit = 1 / (1 + np.exp(-contrast[:, None] * logits))
    luts = (lit[:, :, None, None] - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    return generator.random((count, 2)), canvas_from_output, luts.astype(np.float32)


def _part(side: np.ndarray, generator: np.random.Generator) -> np.ndarray:
    """Matrices from the canvas to a square on it, anywhere, whose side is `side` (B,) of the canvas's."""
    x, y = generator.uniform(-1, 1, (2, len(side))) * (1 - side)
    return _matrices([[side, 0, x], [0, side, y], [0, 0, 1]])


def _matrices(rows: list[list]) -> np.ndarray:
    """Three rows of three entries, each (B,) or one for all, as (B, 3, 3)."""
    entries = np.broadcast_arrays(*(entry for row in rows for entry in row))
    return np.stack(entries, axis=-1).reshape(-1, 3, 3)
