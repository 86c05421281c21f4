"""Messages: one line of limited length, whatever value they contain."""

import os
from collections.abc import Callable
from typing import Any

import pytest

import fastpets
from fastpets.errors import MAX_LENGTH, FastpetsError, InvalidArgumentError, counted, without_middle

BYTES = os.urandom(2**20)


@pytest.mark.parametrize(
    ("number", "noun", "expected"),
    [
        (1, "epoch", "1 epoch"),
        (0, "epoch", "0 epochs"),
        (2, "class", "2 classes"),
        (3, "batch", "3 batches"),
        (1478, "validation image", "1,478 validation images"),
    ],
)
def test_a_noun_is_counted(number: int, noun: str, expected: str) -> None:
    assert counted(number, noun) == expected


def test_the_start_and_the_end_of_a_long_message_are_kept() -> None:
    text = f"size: {'9' * 10_000}, expected a number"
    message = str(FastpetsError(text))
    assert message.startswith("size: 999")
    assert message.endswith("999, expected a number")
    assert f"({len(text) - MAX_LENGTH // 2 - MAX_LENGTH // 4:,} characters left out)" in message
    assert without_middle("x" * MAX_LENGTH) == "x" * MAX_LENGTH


@pytest.mark.parametrize(
    "call",
    [
        lambda: fastpets.Loader([BYTES], device="cpu"),
        lambda: fastpets.Loader("sample", size="9" * 2**20, device="cpu"),
        lambda: fastpets.Augment(max_rotate=BYTES),  # type: ignore[arg-type]
        lambda: fastpets.TrainingOptions(metrics=(BYTES,)),  # type: ignore[arg-type]
        lambda: fastpets.create_model(BYTES.hex(), 3),
    ],
)
def test_an_error_never_contains_a_megabyte(call: Callable[[], Any]) -> None:
    with pytest.raises(InvalidArgumentError) as error:
        call()
    assert len(str(error.value)) <= MAX_LENGTH
    assert "\n" not in str(error.value)
