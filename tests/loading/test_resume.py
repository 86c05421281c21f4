"""A state saved at any batch resumes with the same ids and pixels, in another loader or process, or in several."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.data import RandomSampler, WeightedRandomSampler

from fastpets import BadFileError, FastpetsError, Loader
from fastpets.data.sources import from_folder
from tests.epochs import same

NUM_IMAGES, BATCH_SIZE, NUM_EPOCHS = 11, 3, 5
# A new sampler for each loader. The seed of a sampler's own generator does not matter: a state contains the order.
SAMPLERS: dict[str, Callable[[], Any]] = {
    "none": lambda: None,
    "random": lambda: RandomSampler(range(NUM_IMAGES)),
    "random-own": lambda: RandomSampler(range(NUM_IMAGES), generator=torch.Generator()),
    "weighted": lambda: WeightedRandomSampler(range(1, NUM_IMAGES + 1), 14),
    "weighted-own": lambda: WeightedRandomSampler(range(1, NUM_IMAGES + 1), 14, generator=torch.Generator()),
    "balanced": lambda: "balanced",
}
Batches = list[tuple[list[int], torch.Tensor]]  # of one epoch: the ids and images of each


def make_loader(folder: Path, sampler: str = "none", seed: int = 0, **settings: Any) -> Loader:
    """A training loader that drops no image. `seed` has no effect once a state is loaded."""
    settings = {"batch_size": BATCH_SIZE, "size": 32, "augment": True, "drop_last": False, **settings}
    order = SAMPLERS[sampler]()
    if isinstance(getattr(order, "generator", None), torch.Generator):
        order.generator.manual_seed(seed)
    return Loader(from_folder(folder), sampler=order, seed=seed, num_workers=2, device="cpu", **settings)


def epochs(loader: Loader, number: int) -> list[Batches]:
    """The batches of the next `number` epochs."""
    return [[(batch.ids.tolist(), batch.images) for batch in loader] for _ in range(number)]


def alike(found: list[Batches], expected: list[Batches]) -> bool:
    """Whether ids and pixels of all batches are the same."""
    return [[ids for ids, _ in epoch] for epoch in found] == [[ids for ids, _ in epoch] for epoch in expected] and all(
        torch.equal(one, other)
        for found_epoch, expected_epoch in zip(found, expected, strict=True)
        for (_, one), (_, other) in zip(found_epoch, expected_epoch, strict=True)
    )


def states(loader: Loader, whole: list[Batches]) -> Iterator[tuple[dict[str, Any], list[Batches]]]:
    """States before and after every batch of three epochs, each with the batches that follow in a whole run."""
    for epoch in range(3):
        yield loader.state_dict(), whole[epoch : epoch + 3]
        for number, _ in enumerate(loader, start=1):
            yield loader.state_dict(), [whole[epoch][number:], *whole[epoch + 1 : epoch + 3]]


def by_id(batches: Batches) -> dict[int, torch.Tensor]:
    """The images by id. No id may occur twice."""
    ids = [i for some, _ in batches for i in some]
    assert len(set(ids)) == len(ids)
    return dict(zip(ids, (image for _, images in batches for image in images), strict=True))


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize(
    ("sampler", "settings"),
    [
        *((sampler, {}) for sampler in SAMPLERS),
        ("none", {"augment": False}),
        ("none", {"drop_last": True}),
        ("none", {"cache": "host"}),
        ("weighted", {"cache": "host"}),
    ],
)
def test_a_run_resumed_from_any_state_equals_the_uninterrupted_run(
    make_folder: Callable[..., Path], sampler: str, settings: dict[str, Any]
) -> None:
    folder = make_folder(NUM_IMAGES)
    whole = epochs(make_loader(folder, sampler, **settings), NUM_EPOCHS)
    count = 0
    for state, expected in states(make_loader(folder, sampler, **settings), whole):
        resumed = make_loader(folder, sampler, seed=9, **settings)
        resumed.load_state_dict(state)
        assert alike(epochs(resumed, 3), expected)
        count += 1
    assert count == 3 * (1 + len(whole[0]))


@pytest.mark.filterwarnings("ignore:left out", "ignore:replaced")
@pytest.mark.parametrize("on_bad_file", ["skip", "replace"])
@pytest.mark.parametrize("sampler", ["none", "weighted"])
def test_a_resumed_run_with_bad_files_equals_the_uninterrupted_run(
    make_folder: Callable[..., Path], on_bad_file: str, sampler: str
) -> None:
    folder = make_folder(NUM_IMAGES + 1)
    (folder / "kind0_0.jpg").write_bytes(b"")  # its header is bad
    for name in ("kind0_4.jpg", "kind0_6.jpg", "kind1_7.jpg"):  # two of them neighbours, in the order of the names
        cut_short(folder / name)
    whole = epochs(make_loader(folder, sampler, on_bad_file=on_bad_file), NUM_EPOCHS)
    loader = make_loader(folder, sampler, on_bad_file=on_bad_file)
    for state, expected in states(loader, whole):
        resumed = make_loader(folder, sampler, seed=9, on_bad_file=on_bad_file)
        resumed.load_state_dict(state)
        assert alike(epochs(resumed, 3), expected)
    assert len(loader.bad_files) == 4


IN_A_CHILD = """
import json, sys
from pathlib import Path
import torch
from tests.loading.test_resume import epochs, make_loader
folder, decoder = Path(sys.argv[1]), sys.argv[2]
for sampler, file in zip(sys.argv[3::2], map(Path, sys.argv[4::2]), strict=True):
    states = json.loads(file.read_text()) if file.suffix == ".json" else torch.load(file, weights_only=True)
    found = []
    for state in states:
        loader = make_loader(folder, sampler, seed=9, decoder=decoder)
        loader.load_state_dict(state)
        found.append(epochs(loader, 3))
    torch.save(found, f"{file}.found")
"""


def test_a_new_process_resumes_from_a_saved_state(
    make_folder: Callable[..., Path], tmp_path: Path, decoder: str
) -> None:
    folder, arguments, expected = make_folder(NUM_IMAGES), [], {}
    for sampler, suffix in ("none", "json"), ("none", "pt"), ("random", "pt"), ("weighted-own", "pt"):
        whole = epochs(make_loader(folder, sampler), NUM_EPOCHS)
        saved, follows = zip(*states(make_loader(folder, sampler), whole), strict=True)
        file = tmp_path / f"{sampler}.{suffix}"
        if suffix == "json":
            file.write_text(json.dumps(saved))
        else:
            torch.save(list(saved), file)
        arguments += [sampler, file]
        expected[file] = follows
    subprocess.run([sys.executable, "-c", IN_A_CHILD, folder, decoder, *arguments], check=True, timeout=300)
    for file, follows in expected.items():
        found = torch.load(f"{file}.found", weights_only=True)
        assert all(alike(one, other) for one, other in zip(found, follows, strict=True)), file.name


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_states_from_before_in_and_after_a_loop_resume_there(make_folder: Callable[..., Path], sampler: str) -> None:
    folder = make_folder(NUM_IMAGES)
    whole = epochs(make_loader(folder, sampler), NUM_EPOCHS)
    loader = make_loader(folder, sampler)
    taken = [(loader.state_dict(), whole[:3])]  # before the first loop
    batches = iter(loader)
    taken.append((loader.state_dict(), whole[:3]))  # with an iterator that was not advanced
    for _ in batches:
        in_the_body = loader.state_dict()
    taken.append((in_the_body, [[], *whole[1:3]]))  # with the last batch
    taken.append((loader.state_dict(), whole[1:4]))  # after the loop
    for number, _ in enumerate(loader, start=1):
        if number == 2:
            break
    taken.append((loader.state_dict(), [whole[1][2:], *whole[2:4]]))  # after a break
    after_a_load = make_loader(folder, sampler, seed=9)
    after_a_load.load_state_dict(taken[-1][0])
    taken.append((after_a_load.state_dict(), taken[-1][1]))  # of a loader that was not used after loading
    for state, expected in taken:
        for resumed in (
            make_loader(folder, sampler, seed=9),
            loader,
        ):  # and the loader itself, which continued meanwhile
            resumed.load_state_dict(state)
            assert alike(epochs(resumed, 3), expected)


@pytest.mark.parametrize("sampler", ["none", "random-own"])
@pytest.mark.parametrize("at", [0, 2])
def test_an_epoch_that_a_bad_file_ended_resumes_once_the_file_is_repaired(
    make_folder: Callable[..., Path], sampler: str, at: int
) -> None:
    folder = make_folder(NUM_IMAGES)
    expected = make_loader(folder, sampler)
    whole = epochs(expected, 3)
    path = Path(expected.dataset.paths[whole[0][at][0][0]])
    encoded = path.read_bytes()
    cut_short(path)
    loader = make_loader(folder, sampler)
    with pytest.raises(BadFileError):
        list(loader)
    path.write_bytes(encoded)
    resumed = make_loader(folder, sampler, seed=9)
    resumed.load_state_dict(loader.state_dict())
    assert alike(epochs(resumed, 3), [whole[0][at:], *whole[1:]])


@pytest.mark.parametrize("sampler", ["none", "random-own"])
def test_the_state_is_that_of_the_latest_loop_while_an_earlier_one_continues(
    make_folder: Callable[..., Path], sampler: str
) -> None:
    folder = make_folder(NUM_IMAGES)
    whole = epochs(make_loader(folder, sampler), NUM_EPOCHS)
    loader = make_loader(folder, sampler)
    older, latest = iter(loader), iter(loader)
    for batches in (older, latest, latest, older):  # epochs 0 and 1
        next(batches)
    state = loader.state_dict()
    list(older)
    for taken in (state, loader.state_dict()):
        resumed = make_loader(folder, sampler, seed=9)
        resumed.load_state_dict(taken)
        assert alike(epochs(resumed, 3), [whole[1][2:], *whole[2:4]])


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize(
    "batch_size", [1, 2, 6, 16]
)  # with none of them a single image remains, which training would drop
def test_a_state_resumes_at_another_batch_size_with_the_same_remaining_images(
    make_folder: Callable[..., Path], augment: bool, batch_size: int
) -> None:
    folder, settings = make_folder(16), {"augment": augment, "batch_size": 4}
    whole = epochs(make_loader(folder, **settings), NUM_EPOCHS)
    for state, expected in states(make_loader(folder, **settings), whole):
        resumed = make_loader(folder, seed=9, augment=augment, batch_size=batch_size)
        resumed.load_state_dict(state)
        assert all(same(by_id(found), by_id(rest)) for found, rest in zip(epochs(resumed, 3), expected, strict=True))


@pytest.mark.parametrize("augment", [True, False])
@pytest.mark.parametrize(("before", "after"), [(1, 2), (2, 1), (2, 3), (3, 2)])
def test_a_state_resumes_on_another_number_of_processes_with_the_same_remaining_images(
    make_folder: Callable[..., Path], augment: bool, before: int, after: int
) -> None:
    folder = make_folder(24)  # so that every rest can be divided evenly
    settings = {"augment": augment, "batch_size": 12 // before}
    whole = epochs(make_loader(folder, augment=augment), NUM_EPOCHS)
    ranks = [make_loader(folder, rank=rank, world_size=before, **settings) for rank in range(before)]
    for loader in ranks:
        next(iter(loader))
    state = ranks[0].state_dict()
    assert all(loader.state_dict() == state for loader in ranks)
    delivered = by_id(epochs(make_loader(folder, augment=augment, batch_size=12), 1)[0][:1])
    rest = {i: image for i, image in by_id(whole[0]).items() if i not in delivered}
    resumed = [make_loader(folder, seed=9, rank=rank, world_size=after, **settings) for rank in range(after)]
    for loader in resumed:
        loader.load_state_dict(state)
    for expected in (rest, by_id(whole[1]), by_id(whole[2])):
        assert same(by_id([batch for loader in resumed for batch in epochs(loader, 1)[0]]), expected)


@pytest.mark.parametrize("sampler", ["none", "random"])
def test_set_epoch_to_the_loaded_epoch_keeps_the_loaded_state_and_to_another_discards_it(
    make_folder: Callable[..., Path], sampler: str
) -> None:
    folder = make_folder(NUM_IMAGES)
    whole = epochs(make_loader(folder, sampler), NUM_EPOCHS)
    loader = make_loader(folder, sampler)
    list(loader)
    next(iter(loader))
    state = loader.state_dict()
    for calls, expected in ([1], whole[1][1:]), ([2], whole[2]), ([2, 1], whole[1]), ([1, 1], whole[1][1:]):
        resumed = make_loader(folder, sampler, seed=9)
        resumed.load_state_dict(state)
        for epoch in calls:
            resumed.set_epoch(epoch)
        assert resumed.epoch == calls[-1]
        again = make_loader(folder, sampler, seed=9)
        again.load_state_dict(resumed.state_dict())
        for each in (resumed, again):
            assert alike(epochs(each, 2), [expected, whole[calls[-1] + 1]])


def test_set_epoch_within_a_loop_is_in_the_state_after_the_loop(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(NUM_IMAGES)
    whole = epochs(make_loader(folder), NUM_EPOCHS)
    loader = make_loader(folder)
    for _ in loader:
        loader.set_epoch(3)
    resumed = make_loader(folder, seed=9)
    resumed.load_state_dict(loader.state_dict())
    assert alike(epochs(resumed, 2), whole[3:])


def test_a_state_does_not_count_batches_that_were_read_ahead(make_folder: Callable[..., Path]) -> None:
    loader = make_loader(make_folder(NUM_IMAGES))
    found = []
    for _ in range(2):
        for _ in loader:
            found.append((loader.state_dict()["epoch"], loader.state_dict()["delivered"]))
    assert found == [(epoch, delivered) for epoch in (0, 1) for delivered in (3, 6, 9, 11)]


def test_occurrences_of_a_repeated_image_continue_after_resuming(make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder(5))

    def repeating() -> Loader:
        return Loader(dataset, sampler=[4] * 6, batch_size=2, size=32, augment=True, drop_last=False, device="cpu")

    whole = epochs(repeating(), 1)
    assert len({image.numpy().tobytes() for _, images in whole[0] for image in images}) == 6
    loader, resumed = repeating(), repeating()
    next(iter(loader))
    resumed.load_state_dict(loader.state_dict())
    assert alike(epochs(resumed, 1), [whole[0][1:]])


def test_a_state_of_another_number_of_images_is_rejected(make_folder: Callable[..., Path]) -> None:
    state = make_loader(make_folder(12)).state_dict()
    loader = make_loader(make_folder(NUM_IMAGES, name="fewer"))
    with pytest.raises(FastpetsError, match="loader state: 12 usable images, but this dataset has 11; load the same"):
        loader.load_state_dict(state)
    assert sorted(by_id(epochs(loader, 1)[0])) == list(range(NUM_IMAGES))  # the loader is unchanged


@pytest.mark.parametrize(("one", "other"), [("random-own", "none"), ("none", "random-own"), ("random", "none")])
def test_a_state_of_another_kind_of_sampler_is_rejected(make_folder: Callable[..., Path], one: str, other: str) -> None:
    folder = make_folder(NUM_IMAGES)
    loader = make_loader(folder, one)
    next(iter(loader))
    with pytest.raises(FastpetsError, match="another kind of sampler; give the same"):
        make_loader(folder, other).load_state_dict(loader.state_dict())


@pytest.mark.parametrize("sampler", ["none", "random-own"])
def test_peek_gives_the_next_loops_first_batch_and_changes_nothing(
    make_folder: Callable[..., Path], sampler: str
) -> None:
    folder = make_folder(NUM_IMAGES, name="peeked")
    loader, other = (make_loader(folder, sampler) for _ in range(2))
    loop, other_loop = iter(loader), iter(other)
    next(loop), next(other_loop)
    peeked = loader.peek()  # within an epoch, the next loop is the next epoch
    next(loop), next(other_loop)
    state, other_state = loader.state_dict(), other.state_dict()
    assert (state["epoch"], state["delivered"]) == (other_state["epoch"], other_state["delivered"])
    loop.close()
    first = next(iter(loader))
    assert first.ids.tolist() == peeked.ids.tolist()
    assert torch.equal(first.images, peeked.images)
    assert first.ids.tolist() == next(iter(other)).ids.tolist()


def test_peek_without_a_batch_left_says_so(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(3, name="few")
    loader = Loader(folder, batch_size=2, size=8, device="cpu")
    batches = iter(loader)
    next(batches), next(batches)
    state = loader.state_dict()
    loader.load_state_dict(state)
    with pytest.raises(FastpetsError, match=r"^no batch"):
        loader.peek()
