"""Orders and batches: everything once, by seed and epoch, in a number of batches that is known before."""

import numpy as np
import pytest

from fastpets import order, philox


def test_a_shuffled_order_has_every_item_once() -> None:
    assert sorted(order.epoch_order(1000, shuffle=True, seed=0, epoch=0)) == list(range(1000))


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    def shuffled(seed: int, epoch: int) -> np.ndarray:
        return order.epoch_order(100, shuffle=True, seed=seed, epoch=epoch)

    assert (shuffled(1, 2) == shuffled(1, 2)).all()
    assert (shuffled(1, 2) != shuffled(1, 3)).any()
    assert (shuffled(1, 2) != shuffled(2, 2)).any()


def test_an_unshuffled_order_is_the_items_own() -> None:
    assert (order.epoch_order(9, shuffle=False, seed=5, epoch=3) == np.arange(9)).all()


def test_every_place_is_as_likely_for_an_item() -> None:
    places = [int(np.argmax(order.permutation(10, purpose=philox.ORDER, seed=s) == 0)) for s in range(5000)]
    counts = np.bincount(places, minlength=10)
    assert (abs(counts - 500) < 5 * np.sqrt(500 * 0.9)).all()  # five standard deviations of a binomial count


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("num_items", [0, 1, 7, 8, 9, 64, 65])
@pytest.mark.parametrize("batch_size", [1, 8, 64, 128])
def test_batches_are_counted_right_and_lose_only_an_incomplete_last_one(
    num_items: int, batch_size: int, drop_last: bool
) -> None:
    ids = np.arange(num_items)
    cut = order.batches(ids, batch_size, drop_last=drop_last)
    assert len(cut) == order.num_batches(num_items, batch_size, drop_last=drop_last)
    delivered = np.concatenate([*cut, ids[:0]])
    dropped = num_items % batch_size if drop_last and num_items > batch_size else 0
    assert (delivered == ids[: num_items - dropped]).all()
    assert all(len(batch) == batch_size for batch in cut[:-1])
