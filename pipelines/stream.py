"""Batches through one DALI pipeline: decoded ahead of their consumption, delivered in order."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from fastpets.pipelines.graphs import decoded_images

Encoded = Sequence[np.ndarray]  # a batch of encoded images, each 1-D uint8


class Stream:
    """A pipeline at work on batches, the first of which it is made with; their number is how far it runs ahead.

    `device` is "cpu" or "gpu", `device_id` None or the GPU's number, `hw_decoder_load` the share of a batch (0-1) that
    the GPU's JPEG engine takes, if it has one: none by default, as on H100 it was reported to ignore the order of
    streams (pytorch/torchcodec pull request 1634). DALI takes its first batches in one go, as many as
    its queue is deep, and later ones singly; a batch must stay alive until its images have been taken.
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
        self._order = {} if device == "cpu" else {"stream": -1}  # they are synchronized with the host already
        self._pipeline = decoded_images(
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
        """Adds a batch behind those under way."""
        self._pipeline.feed_input("encoded", encoded)
        self._pipeline.schedule_run()

    def take(self) -> list[Any]:
        """The images of the oldest batch under way, each a DLPack capsule, which hands them on without a copy.

        They stay valid as long as somebody holds them (a promise of the dynamic executor alone). Raises RuntimeError
        if an image of the batch does not decode; the stream is then of no further use.
        """
        (images,) = self._pipeline.share_outputs()
        self._pipeline.release_outputs()
        return [image.__dlpack__(**self._order) for image in images]


def undecodable(encoded: Encoded, *, device: str, device_id: int | None) -> list[int]:
    """The positions of the encoded images that do not decode, each tried in a pipeline of its own."""
    culprits = []
    for position, image in enumerate(encoded):
        try:
            Stream([[image]], batch_size=1, num_threads=1, device=device, device_id=device_id).take()
        except RuntimeError:
            culprits.append(position)
    return culprits
