"""Hints: the best epoch, and input-bound training."""

from typing import Any

import pytest

from fastpets.runs import hints
from fastpets.training.history import EpochResult


def history_of(*error_rates: float, phase: str = "unfrozen") -> list[EpochResult]:
    rest: dict[str, Any] = {"phase": phase, "batches": 1, "train_loss": 1, "valid_loss": 1, "metrics": {}}
    rest |= {"seconds": 1, "images_per_sec": 1, "input_share": 0}
    return [EpochResult(epoch=epoch, error_rate=rate, **rest) for epoch, rate in enumerate(error_rates)]


def test_training_again_for_as_many_epochs_is_suggested_if_an_earlier_epoch_was_clearly_better() -> None:
    line = hints.best_epoch(history_of(0.3, 0.1, 0.2, 0.25), num_valid=1000)
    assert line == (
        "epoch 1 of the unfrozen phase had the lowest error rate, 0.1000; the last has 0.2500, 150 images more; "
        "for possibly better weights, train the unfrozen phase for 2 epochs"
    )


def test_a_difference_of_a_few_images_may_be_chance() -> None:
    # The chapter's run: 1,478 images, of which 0.0514 wrong in epoch 8 and 0.0541 in the last; sd 8.5 images.
    line = hints.best_epoch(history_of(0.06, 0.051421, 0.054127), num_valid=1478)
    assert line is not None
    assert line.endswith("4 images more, which may be chance with 1,478 images")


@pytest.mark.parametrize("rates", [(), (0.1,), (0.3, 0.2, 0.1), (0.1, 0.1)])
def test_there_is_no_hint_if_the_last_epoch_is_the_best(rates: tuple[float, ...]) -> None:
    assert hints.best_epoch(history_of(*rates), num_valid=100) is None


def test_other_phases_are_not_compared() -> None:
    history = [*history_of(0.01, phase="frozen"), *history_of(0.5, 0.4)]
    assert hints.best_epoch(history, num_valid=100) is None
    same_name = [*history_of(0.01), *history_of(0.5, 0.4)]  # as a schedule "unfrozen 1 ..., unfrozen 2 ..." makes it
    assert hints.best_epoch(same_name, num_valid=100) is None


@pytest.mark.parametrize(("share", "hinted"), [(0.0, False), (0.1, False), (0.11, True)])
def test_training_is_input_bound_above_a_tenth_of_the_time(share: float, hinted: bool) -> None:
    assert bool(hints.input_bound(share, 2, cached=False)) is hinted


@pytest.mark.parametrize("cached", [False, True])
def test_the_first_epoch_of_a_process_is_not_judged(cached: bool) -> None:
    assert hints.input_bound(0.76, 1, cached) is None


def test_a_cache_is_suggested_if_there_is_none() -> None:
    assert "cache='auto'" in str(hints.input_bound(0.5, 2, cached=False))
    line = str(hints.input_bound(0.5, 2, cached=True))
    assert "cache=" not in line
    assert line.startswith("training is input-bound: it waited for images 50% of the time; raise num_workers")
