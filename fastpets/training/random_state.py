"""A learner's own random state. It depends on the learner's seed alone, and the caller's state is not touched."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


class RandomState:
    """The states of torch's generators of the CPU and of `device`, if that is a GPU, seeded by `seed`."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.devices = [device.index] if device.type == "cuda" else []
        self.is_active = False
        self.stored = self._seeded_states(seed)

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Gives torch's generators these states on entry; stores theirs and restores the caller's on exit.

        Has no effect inside another `active`.
        """
        if self.is_active:
            yield
            return
        with torch.random.fork_rng(devices=self.devices):
            self.is_active = True
            self._set_states(self.stored)
            try:
                yield
            finally:
                self.stored, self.is_active = self._get_states(), False

    def state_dict(self) -> dict[str, Any]:
        """The states as tensors."""
        return {"states": self._get_states() if self.is_active else self.stored}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a `state_dict`. If it was saved without a GPU, a GPU's state stays as it is."""
        self.stored = [*state["states"], *self.stored[len(state["states"]) :]][: 1 + len(self.devices)]
        if self.is_active:
            self._set_states(self.stored)

    def diverge(self, number: int) -> None:
        """Seeds the states anew by themselves and `number`, so that processes that load one state differ.

        0 leaves them unchanged.
        """
        if number:
            with self.active():
                seed = int(torch.randint(2**62, ())) ^ number
            self.load_state_dict({"states": self._seeded_states(seed)})

    def _seeded_states(self, seed: int) -> list[torch.Tensor]:
        devices = ["cpu", *(f"cuda:{index}" for index in self.devices)]
        return [torch.Generator(device).manual_seed(seed).get_state() for device in devices]

    def _get_states(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in self.devices)]

    def _set_states(self, states: list[torch.Tensor]) -> None:
        torch.set_rng_state(states[0])
        for index, state in zip(self.devices, states[1:], strict=True):
            torch.cuda.set_rng_state(state, index)
