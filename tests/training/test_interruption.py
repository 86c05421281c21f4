"""Signals: deferred to the end of a step, and handled as before afterwards."""

import signal

import pytest

from fastpets.training.interruption import Interrupted, Interruption


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_the_first_signal_waits_for_a_step_and_the_second_interrupts_at_once(number: int) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        interruption.on_step_end(None)
        signal.raise_signal(number)
        with pytest.raises(Interrupted) as raised:
            interruption.on_step_end(None)
        assert raised.value.number == number
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(number)
    assert signal.getsignal(number) is before
