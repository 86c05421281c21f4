"""Orders what several CUDA streams do with one block of a GPU's memory."""

import torch


class StreamOrder:
    """Makes the streams that read a block of memory wait for those that wrote it.

    On a CPU it does nothing. Threads may share it.
    """

    def __init__(self, block: torch.Tensor) -> None:
        self._device = block.device
        self._written: dict[torch.cuda.Stream, torch.cuda.Event] = {}
        self.wrote()  # torch may have allocated memory that the current stream is still using

    def wrote(self) -> None:
        """Records that the current stream has written. Only then may others learn what is in the block."""
        if self._device.type != "cuda":
            return
        stream = torch.cuda.current_stream(self._device)
        event = self._written.get(stream) or torch.cuda.Event()
        event.record(stream)
        self._written[stream] = event

    def wait(self) -> None:
        """Makes the current stream wait for what all others have written so far."""
        if self._device.type != "cuda":
            return
        stream = torch.cuda.current_stream(self._device)
        for other, event in [*self._written.items()]:
            if other != stream:
                stream.wait_event(event)
