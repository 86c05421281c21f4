"""Torch's random state, a learner's own: what it draws is a function of its seed, and the caller's is left alone."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Draws on the CPU by this seed within, and the caller's state as it was behind it."""
    with torch.random.fork_rng(devices=[]):
        torch.random.default_generator.manual_seed(seed)
        yield


class RandomState:
    """The state of torch's generators for the CPU and for `device`, by `seed` at first."""

    def __init__(self, seed: int, device: torch.device) -> None:
        self.devices = [device.index] if device.type == "cuda" else []
        self.within = False
        with torch.random.fork_rng(devices=self.devices):
            torch.random.default_generator.manual_seed(seed)
            for index in self.devices:
                torch.cuda.default_generators[index].manual_seed(seed)
            self.kept = self._current()

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Has torch draw from this state within, and from the caller's behind it."""
        if self.within:
            yield
            return
        with torch.random.fork_rng(devices=self.devices):
            self.within = True
            self._make_current(self.kept)
            try:
                yield
            finally:
                self.kept, self.within = self._current(), False

    def state_dict(self) -> dict[str, Any]:
        """The states as tensors."""
        return {"states": self._current() if self.within else self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on from a `state_dict`; on a device that it has no state of, from where it is."""
        self.kept = [*state["states"], *self.kept[len(state["states"]) :]][: 1 + len(self.devices)]
        if self.within:
            self._make_current(self.kept)

    def diverge(self, number: int) -> None:
        """Goes on, for a number other than 0, from a state that is a function of this one and the number."""
        if number:
            with self.in_use():
                seed = int(torch.randint(2**62, ())) ^ number
                torch.manual_seed(seed)

    def _current(self) -> list[torch.Tensor]:
        return [torch.get_rng_state(), *(torch.cuda.get_rng_state(index) for index in self.devices)]

    def _make_current(self, states: list[torch.Tensor]) -> None:
        torch.set_rng_state(states[0])
        for index, state in zip(self.devices, states[1:], strict=True):
            torch.cuda.set_rng_state(state, index)
