"""DecodePipeline: a running DALI pipeline that decodes batches ahead of their use, in order."""

import atexit
import os
import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np
from nvidia.dali import backend

from fastpets.pipelines.errors import UndecodableError, translated
from fastpets.pipelines.graphs import decoded_images

Encoded = Sequence[np.ndarray]  # a batch of encoded images, each 1-D uint8


class DecodePipeline:
    """A queue of batches in decoding: `put` adds an encoded batch, `take` returns the images of the oldest one.

    The arrays of a batch must stay alive until its images are taken. If DALI's memory, or a GPU's, is exhausted, each
    method raises torch.OutOfMemoryError, and RuntimeError if CUDA fails; the pipeline must not be used after that.

    Args:
        first: the first batches. Their number is the pipeline's prefetch depth: DALI takes that many at once before the
            first result, and one by one afterwards.
        batch_size: the most images in a batch.
        num_threads: DALI's threads, which share a batch's images.
        device: "cpu" or "gpu", where images are decoded and returned.
        device_id: the GPU's index, or None without one.
        hw_decoder_load: the share of a batch, 0-1, that a GPU's hardware JPEG decoder takes, if there is one. It is 0
            by default, as on H100 that decoder was reported to ignore stream order (pytorch/torchcodec pull request
            1634).
        hints: of `memory_hints`, for a GPU.
    """

    def __init__(
        self,
        first: Sequence[Encoded],
        *,
        batch_size: int,
        num_threads: int,
        device: str,
        device_id: int | None,
        hw_decoder_load: float = 0.0,
        hints: dict[str, int] | None = None,
    ) -> None:
        # stream=-1 asks DLPack for no synchronization: take() has waited for the images already.
        self._dlpack_arguments = {} if device == "cpu" else {"stream": -1}
        with translated():
            self._pipeline = decoded_images(
                device=device,
                hw_decoder_load=hw_decoder_load,
                hints=hints,
                batch_size=batch_size,
                num_threads=num_threads,
                device_id=device_id,
                prefetch_queue_depth=len(first),
            )
            _pipelines.add(self)
            self._pipeline.build()
            for encoded in first:
                self._pipeline.feed_input("encoded", encoded)
            self._pipeline.schedule_run()

    def put(self, encoded: Encoded) -> None:
        """Adds a batch to the queue and starts to decode it."""
        with translated():
            self._pipeline.feed_input("encoded", encoded)
            self._pipeline.schedule_run()

    def take(self) -> tuple[Any, np.ndarray]:
        """Waits for the oldest batch and returns its B images without a copy: their memory, and their sizes (B, 2).

        DALI makes the output of a pipeline contiguous: the images (H, W, 3) lie one after another in the memory, which
        is a DLPack capsule (bytes,). It stays valid while a tensor made from the capsule exists, which only the dynamic
        executor guarantees. Raises UndecodableError if an image of the batch cannot be decoded; the pipeline must not
        be used after that.
        """
        with translated():
            (images,) = self._pipeline.share_outputs()
            self._pipeline.release_outputs()
        shapes = np.array(images.shape(), np.int64)
        block = images.as_reshaped_tensor([int(shapes.prod(axis=1).sum())])
        return block.__dlpack__(**self._dlpack_arguments), shapes[:, :2]


_pipelines = weakref.WeakSet[DecodePipeline]()  # of this process
_inherited: list[DecodePipeline] = []  # from the parent, without their threads, for which deleting one would wait


def _keep_inherited() -> None:
    _inherited.extend(_pipelines)
    _pipelines.clear()


os.register_at_fork(after_in_child=_keep_inherited)


@atexit.register
def _delete_all() -> None:
    """Deletes DALI's pipelines while there are the modules that its destructor uses."""
    for pipeline in [*_pipelines]:
        del pipeline._pipeline


def release_unused_memory() -> None:
    """Returns the memory of deleted pipelines, on the GPU and pinned, to the system; DALI keeps it for later ones."""
    backend.ReleaseUnusedMemory()  # type: ignore[attr-defined]


def undecodable(encoded: Encoded, sizes: np.ndarray) -> list[int]:
    """Returns the batch positions of the images that do not decode, on the CPU, to their `sizes` (B, 2).

    Each is a batch of its own, as an error does not say which image it is about.
    """
    pipeline, positions = None, []
    for position, image in enumerate(encoded):
        try:
            if pipeline is None:
                pipeline = DecodePipeline([[image]], batch_size=1, num_threads=1, device="cpu", device_id=None)
            else:
                pipeline.put([image])
            _, found = pipeline.take()
        except UndecodableError:
            pipeline = None
            positions.append(position)
        else:
            if tuple(found[0]) != tuple(sizes[position]):
                positions.append(position)
    return positions
