"""Decodes batches ahead of their consumption in a DALI pipeline, and delivers them in order."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpets.pipelines.graphs import decode_pipeline

Encoded = Sequence[np.ndarray]  # a batch of encoded images, each 1-D uint8


class Stream:
    """A running DALI pipeline: `put` adds a batch of encoded images, `take` returns the oldest one decoded.

    DALI fills its prefetch queue at once, so the first batches are arguments of the constructor, and their number is
    the depth of the queue. Arrays of a batch are not copied: they must stay alive until its images have been taken.

    Args:
        first: the first batches.
        batch_size: the most images in a batch.
        num_threads: threads that decode on the CPU.
        device: "cpu" or "gpu".
        device_id: the GPU's number, or None on the CPU.
        hw_decoder_load: fraction of a batch, 0-1, for the GPU's JPEG engine, if it has one. By default none, as on
            H100 it was reported to ignore the order of streams (pytorch/torchcodec pull request 1634).
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
    ) -> None:
        # On a GPU images are complete when taken: -1 requests no further synchronisation.
        self._dlpack_options = {} if device == "cpu" else {"stream": -1}
        self._pipeline = decode_pipeline(
            device=device,
            hw_decoder_load=hw_decoder_load,
            batch_size=batch_size,
            num_threads=num_threads,
            device_id=device_id,
            prefetch_queue_depth=len(first),
        )
        self._pipeline.build()
        for encoded in first:
            self._pipeline.feed_input("encoded", encoded)
        self._pipeline.schedule_run()

    def put(self, encoded: Encoded) -> None:
        """Schedules a batch after those in flight."""
        self._pipeline.feed_input("encoded", encoded)
        self._pipeline.schedule_run()

    def take(self) -> list[Any]:
        """The images (H, W, 3) uint8 of the oldest batch in flight, as DLPack capsules, without a copy.

        Images stay valid as long as they are referenced, which only DALI's dynamic executor guarantees. Raises
        RuntimeError if an image of the batch does not decode; the stream is then unusable.
        """
        (images,) = self._pipeline.share_outputs()
        self._pipeline.release_outputs()
        return [image.__dlpack__(**self._dlpack_options) for image in images]


def undecodable(encoded: Encoded, *, device: str, device_id: int | None) -> list[int]:
    """Positions of the encoded images that do not decode. Tries each in a pipeline of its own."""
    culprits = []
    for position, image in enumerate(encoded):
        try:
            Stream([[image]], batch_size=1, num_threads=1, device=device, device_id=device_id).take()
        except RuntimeError:
            culprits.append(position)
    return culprits
