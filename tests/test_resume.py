"""A loader that goes on from a saved state delivers what an uninterrupted one would have."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import RandomSampler, WeightedRandomSampler

from fastpets import FastpetsError, Loader
from tests.epochs import pixels_by_id, same

SETTINGS: dict[str, Any] = {"size": 16, "augment": True, "batch_size": 3, "drop_last": False, "device": "cpu"}
NUM_PICTURES = 11
SAMPLERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "balanced": lambda: "balanced",
    "random": lambda: RandomSampler(range(NUM_PICTURES)),
    "random by its own generator": lambda: RandomSampler(
        range(NUM_PICTURES), generator=torch.Generator().manual_seed(5)
    ),
    "weighted, with repeats": lambda: WeightedRandomSampler([1.0] * 3 + [9.0] * 8, NUM_PICTURES),
}


@pytest.fixture
def folder(make_folder: Callable[..., Path]) -> Path:
    return make_folder(NUM_PICTURES)


def batches(loader: Loader, epochs: int = 1) -> list[tuple[list[int], bytes]]:
    """The ids and pixels of each batch of the next epochs."""
    return [(batch.ids.tolist(), batch.images.numpy().tobytes()) for _ in range(epochs) for batch in loader]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_what_follows_a_state_is_what_would_have_followed(folder: Path, sampler: str, tmp_path: Path) -> None:
    def make() -> Loader:
        return Loader(folder, sampler=SAMPLERS[sampler](), **SETTINGS)

    whole, states = make(), []
    expected = []
    for _ in range(3):
        states.append((len(expected), whole.state_dict()))
        for batch in whole:
            expected.append((batch.ids.tolist(), batch.images.numpy().tobytes()))
            states.append((len(expected), whole.state_dict()))  # what is read ahead is not counted
    assert len(expected) == 12
    for count, state in states:
        torch.save(state, tmp_path / "state.pt")
        resumed = make()
        resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        assert batches(resumed, 4)[: 12 - count] == expected[count:]


def test_a_state_survives_a_break_and_a_load_and_json(folder: Path) -> None:
    loader = Loader(folder, **SETTINGS)
    list(loader)
    for number, _ in enumerate(loader):
        if number == 1:
            break
    state = loader.state_dict()
    assert (state["epoch"], state["delivered"]) == (1, 6)
    other = Loader(folder, **SETTINGS)
    other.load_state_dict(json.loads(json.dumps(state)))
    assert other.state_dict() == state
    assert [len(ids) for ids, _ in batches(other)] == [3, 2]
    assert (other.state_dict()["epoch"], other.state_dict()["delivered"]) == (2, 0)


IN_A_CHILD = """
import json, sys
from tests.test_resume import SETTINGS, batches
from fastpets import Loader
loader = Loader(sys.argv[1], **SETTINGS)
loader.load_state_dict(json.loads(sys.argv[2]))
print(json.dumps([(ids, pixels.hex()) for ids, pixels in batches(loader, 2)]))
"""


def test_another_process_goes_on_with_the_same_pixels(folder: Path) -> None:
    loader = Loader(folder, **SETTINGS)
    iterator = iter(loader)
    next(iterator)
    command = [sys.executable, "-c", IN_A_CHILD, str(folder), json.dumps(loader.state_dict())]
    child = subprocess.run(command, capture_output=True, text=True, check=True)
    rest = [(batch.ids.tolist(), batch.images.numpy().tobytes().hex()) for batch in iterator]
    rest += [(ids, pixels.hex()) for ids, pixels in batches(loader)]
    assert [tuple(each) for each in json.loads(child.stdout)] == rest


@pytest.mark.parametrize(("batch_size", "world_size"), [(1, 1), (5, 1), (2, 2), (1, 3)])
def test_another_batch_size_or_number_of_processes_goes_on_with_the_same_pixels(
    folder: Path, batch_size: int, world_size: int
) -> None:
    loader = Loader(folder, **SETTINGS)
    next(iter(loader))
    state = loader.state_dict()
    same_loader = Loader(folder, **SETTINGS)
    same_loader.load_state_dict(state)
    expected = pixels_by_id(same_loader)
    found: dict[int, torch.Tensor] = {}
    for rank in range(world_size):
        share = Loader(folder, **SETTINGS | {"batch_size": batch_size}, rank=rank, world_size=world_size)
        share.load_state_dict(state)
        found |= pixels_by_id(share)
    assert len(expected) == NUM_PICTURES - 3
    assert len(expected) - len(found) < 2 * world_size  # what cannot be dealt out evenly, or would be one by itself
    assert same(found, {i: expected[i] for i in found})


def test_set_epoch_keeps_a_place_in_the_same_epoch_and_drops_it_for_another(folder: Path) -> None:
    loader = Loader(folder, **SETTINGS)
    next(iter(loader))
    state = loader.state_dict()
    loader.load_state_dict(state)
    loader.set_epoch(0)
    assert len(batches(loader)) == 3
    loader.load_state_dict(state)
    loader.set_epoch(1)
    assert len(batches(loader)) == 4


@pytest.mark.parametrize("settings", [{"cache": "host"}, {"on_bad_file": "skip"}, {"on_bad_file": "replace"}])
@pytest.mark.filterwarnings("ignore:(left out|replaced)")
def test_a_cache_and_files_that_turn_out_bad_change_nothing(folder: Path, settings: dict[str, Any]) -> None:
    if "on_bad_file" in settings:
        for name in ("kind0_2.jpg", "kind1_7.jpg"):
            (folder / name).write_bytes((folder / name).read_bytes()[:1500])  # parses, and does not decode
    whole = Loader(folder, **SETTINGS, **settings)
    expected, states = [], []
    for _ in range(2):
        for batch in whole:
            expected.append((batch.ids.tolist(), batch.images.numpy().tobytes()))
            states.append(whole.state_dict())
    for count, state in enumerate(states, start=1):
        resumed = Loader(folder, **SETTINGS, **settings)
        resumed.load_state_dict(state)
        assert batches(resumed, 2)[: len(expected) - count] == expected[count:]


def test_a_state_of_other_pictures_is_refused(folder: Path) -> None:
    state = Loader(folder, **SETTINGS).state_dict()
    (folder / "kind0_0.jpg").unlink()
    with pytest.raises(FastpetsError, match="state of a loader of 11 usable pictures, but here are 10"):
        Loader(folder, **SETTINGS).load_state_dict(state)


def test_a_picture_that_a_sampler_repeats_keeps_its_count_over_an_interruption(folder: Path) -> None:
    loader = Loader(folder, sampler=[4] * 6, **SETTINGS | {"batch_size": 2})
    first, *_ = whole = [batch.images for batch in loader]
    assert len({image.numpy().tobytes() for images in whole for image in images}) == 6
    again = Loader(folder, sampler=[4] * 6, **SETTINGS | {"batch_size": 2})
    assert torch.equal(next(iter(again)).images, first)
    resumed = Loader(folder, sampler=[4] * 6, **SETTINGS | {"batch_size": 2})
    resumed.load_state_dict(again.state_dict())
    assert all(torch.equal(batch.images, images) for batch, images in zip(resumed, whole[1:], strict=True))
    assert np.all([len(images) == 2 for images in whole])
