"""The sampler: each item once per epoch, an order that depends on seed and epoch, and equal shares for all ranks."""

import numpy as np
import pytest
import torch
from torch.utils.data import RandomSampler

from fastpets.data.dataset import NO_LABEL
from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.loading import sampler
from fastpets.utils import philox


def test_a_shuffled_order_has_every_item_once() -> None:
    assert sorted(sampler.epoch_order(1000, shuffle=True, seed=0, epoch=0)) == list(range(1000))


def test_an_order_is_a_function_of_seed_and_epoch() -> None:
    def shuffled(seed: int, epoch: int) -> np.ndarray:
        return sampler.epoch_order(100, shuffle=True, seed=seed, epoch=epoch)

    assert (shuffled(1, 2) == shuffled(1, 2)).all()
    assert (shuffled(1, 2) != shuffled(1, 3)).any()
    assert (shuffled(1, 2) != shuffled(2, 2)).any()


def test_without_shuffle_the_order_is_that_of_the_ids() -> None:
    assert (sampler.epoch_order(9, shuffle=False, seed=5, epoch=3) == np.arange(9)).all()


def test_an_item_is_equally_likely_at_every_position() -> None:
    places = [int(np.argmax(philox.permutation(10, purpose=philox.ORDER, seed=s) == 0)) for s in range(5000)]
    counts = np.bincount(places, minlength=10)
    assert (abs(counts - 500) < 5 * np.sqrt(500 * 0.9)).all()  # five standard deviations of a binomial count


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("num_items", [0, 1, 7, 8, 9, 64, 65])
@pytest.mark.parametrize("batch_size", [1, 8, 64, 128])
def test_batches_lose_only_an_incomplete_last_one(num_items: int, batch_size: int, drop_last: bool) -> None:
    ids = np.arange(num_items)
    cut = [ids[part] for part in sampler.batch_slices(num_items, batch_size, drop_last=drop_last)]
    delivered = np.concatenate([*cut, ids[:0]])
    dropped = num_items % batch_size if drop_last and num_items > batch_size else 0
    assert (delivered == ids[: num_items - dropped]).all()
    assert all(len(batch) == batch_size for batch in cut[:-1])


def shares(num_items: int, batch_size: int, world_size: int, **settings: bool) -> list[list[np.ndarray]]:
    """The batches of each process."""
    ids = np.arange(num_items)
    return [
        [
            ids[part]
            for part in sampler.batch_slices(num_items, batch_size, rank=rank, world_size=world_size, **settings)
        ]
        for rank in range(world_size)
    ]


@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("num_items", [1, 2, 7, 10, 12, 13, 49, 100])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_without_even_each_item_comes_once_over_all_processes(num_items: int, batch_size: int, world_size: int) -> None:
    batches = [batch for own in shares(num_items, batch_size, world_size, drop_last=False) for batch in own]
    assert sorted(np.concatenate(batches)) == list(range(num_items))
    assert all(1 <= len(batch) <= batch_size for batch in batches)


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("world_size", [1, 2, 3, 4, 7])
@pytest.mark.parametrize("num_items", [1, 2, 7, 10, 12, 13, 49, 100])
@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_with_even_all_processes_take_equally_large_and_disjoint_batches(
    num_items: int, batch_size: int, world_size: int, drop_last: bool
) -> None:
    own = shares(num_items, batch_size, world_size, drop_last=drop_last, even=True)
    assert len({tuple(map(len, batches)) for batches in own}) == 1
    delivered = [int(i) for batches in own for batch in batches for i in batch]
    assert len(set(delivered)) == len(delivered)
    step = batch_size * world_size
    if drop_last:
        left = num_items % step if num_items > step else num_items % world_size if num_items < step else 0
    else:
        left = 2 * world_size - 1 if batch_size > 1 else world_size - 1
    assert num_items - len(delivered) <= left
    for batches in own:
        assert all(len(batch) > 1 for batch in batches[1:]) or batch_size == 1


def test_a_step_of_all_processes_takes_the_items_of_one_batch_of_their_total_size() -> None:
    joined = [set(batch) for batch in shares(100, 6, 1, drop_last=True, even=True)[0]]
    steps = zip(*shares(100, 2, 3, drop_last=True, even=True), strict=True)
    assert [set(np.concatenate(step)) for step in steps] == joined


@pytest.mark.parametrize("first", [0, 12, 24, 96])
def test_a_resumed_epoch_has_the_remaining_batches_of_the_whole_one(first: int) -> None:
    whole = sampler.batch_slices(100, 4, drop_last=True, even=True, rank=1, world_size=3)
    rest = sampler.batch_slices(100, 4, drop_last=True, even=True, rank=1, world_size=3, first=first)
    assert rest == whole[first // 12 :]


def test_occurrences_count_how_often_an_id_came_before() -> None:
    assert sampler.occurrences(np.array([5, 2, 5, 5, 2, 0])).tolist() == [0, 0, 1, 2, 1, 0]
    assert sampler.occurrences(np.zeros(0, np.int64)).tolist() == []


def test_a_samplers_order_depends_on_seed_and_epoch_and_torchs_generator_is_unchanged() -> None:
    random_sampler = RandomSampler(range(50))
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    drawn = [sampler.sampled_order(random_sampler, 50, seed=seed, epoch=epoch).tolist() for seed, epoch in
             ((0, 0), (0, 0), (0, 1), (1, 0))]  # fmt: skip
    assert torch.equal(torch.rand(3), expected)
    assert drawn[0] == drawn[1]
    assert drawn[0] != drawn[2] != drawn[3] != drawn[0]
    assert sorted(drawn[3]) == list(range(50))


@pytest.mark.parametrize("wrong", [-1, 9])
def test_item_ids_out_of_range_are_rejected(wrong: int) -> None:
    with pytest.raises(FastpetsError, match=f"sampler: item id {wrong}, expected 0 to 8"):
        sampler.sampled_order([0, wrong, 3], 9, seed=0, epoch=0)


def test_planning_an_epoch_leaves_the_callers_generators_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    seeded: list[int] = []
    monkeypatch.setattr(torch.cuda, "manual_seed_all", seeded.append)
    before = torch.get_rng_state()
    sampler.sampled_order(RandomSampler(range(9)), 9, seed=1, epoch=0)
    assert torch.equal(torch.get_rng_state(), before)
    assert seeded == []  # torch.manual_seed would seed the GPUs


def test_an_array_of_ids_is_a_sampler() -> None:
    ids = np.array([2, 0, 2])
    assert sampler.as_sampler(ids, np.zeros(3, np.int64), np.ones(3, bool)) is ids


def test_a_balanced_sampler_needs_labels() -> None:
    with pytest.raises(InvalidArgumentError, match=r"^sampler: 'balanced', but no image has a label"):
        sampler.as_sampler("balanced", np.full(3, NO_LABEL), np.ones(3, bool))
