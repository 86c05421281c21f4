"""Batches through one DALI pipeline: decoded ahead of their consumption, delivered in order."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np
from nvidia.dali import Pipeline

from fastpets.pipelines.graphs import decoded_pictures

Inputs = dict[str, Any]  # by external source: an array with a batch dimension, or a list of arrays


class Stream:
    """A pipeline at work on batches, the first of which it is made with; their number is how far it runs ahead.

    DALI takes its first batches in one go, as many as its queue is deep, and later ones singly; an input must stay
    alive until its output has been taken.
    """

    def __init__(self, graph: Callable[..., Pipeline], first: Sequence[Inputs]) -> None:
        self._pipeline = graph(prefetch_queue_depth=len(first))
        self._pipeline.build()
        for inputs in first:
            self._feed(inputs)
        self._pipeline.schedule_run()

    def _feed(self, inputs: Inputs) -> None:
        for name, batch in inputs.items():
            self._pipeline.feed_input(name, batch)

    def put(self, inputs: Inputs) -> None:
        """Adds a batch behind those under way."""
        self._feed(inputs)
        self._pipeline.schedule_run()

    def take(self) -> Any:
        """The output of the oldest batch under way, as one dense tensor that DLPack hands on without a copy.

        It stays valid as long as somebody holds it (a promise of the dynamic executor alone). Raises RuntimeError
        if a picture of the batch does not decode; the stream is then of no further use.
        """
        (output,) = self._pipeline.share_outputs()
        tensor = output.as_tensor()
        self._pipeline.release_outputs()
        return tensor


def undecodable(encoded: Sequence[np.ndarray], *, device: str, device_id: int | None) -> list[int]:
    """The positions of the encoded pictures that do not decode, each tried in a pipeline of its own."""
    culprits = []
    for position, picture in enumerate(encoded):
        graph = partial(decoded_pictures, device=device, batch_size=1, num_threads=1, device_id=device_id)
        try:
            Stream(graph, [{"encoded": [picture]}]).take()
        except RuntimeError:
            culprits.append(position)
    return culprits
