"""A learner's own random state: its random numbers depend on its seed alone, and the caller's state is not touched."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


class RandomState:
    """States of torch's generators for the CPU and for `device`, at first from `seed`."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.devices = [device.index] if device.type == "cuda" else []
        self.is_active = False
        with torch.random.fork_rng(devices=self.devices):
            torch.random.default_generator.manual_seed(seed)
            for index in self.devices:
                torch.cuda.default_generators[index].manual_seed(seed)
            self.stored = self._get_states()

    @contextlib.contextmanager
    def active(self) -> Iterator[None]:
        """Makes this torch's random state on entry and restores the caller's on exit; nested uses do nothing."""
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
        """Restores a `state_dict`. A device that it has no state of keeps its own."""
        self.stored = [*state["states"], *self.stored[len(state["states"]) :]][: 1 + len(self.devices)]
        if self.is_active:
            self._set_states(self.stored)

    def diverge(self, number: int) -> None:
        """Replaces the state by a function of itself and `number`; 0 leaves it unchanged."""
        if number:
            with self.active():
                seed = int(torch.randint(2**62, ())) ^ number
                torch.manual_seed(seed)

    def _get_states(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in self.devices)]

    def _set_states(self, states: list[torch.Tensor]) -> None:
        torch.set_rng_state(states[0])
        for index, state in zip(self.devices, states[1:], strict=True):
            torch.cuda.set_rng_state(state, index)
