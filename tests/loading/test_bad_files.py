"""Unusable files raise an error or are skipped or replaced, and all other images are delivered."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

import fastpets
from fastpets import BadFileError, Loader
from fastpets.data.sources import from_folder
from tests.epochs import pixels_by_id, same
from tests.images import drawing, encode

SIZE = 32


def with_bad_files(folder: Path) -> Path:
    """Overwrites three images: with a GIF, a text and an empty file."""
    (folder / "kind0_0.jpg").write_bytes(encode(drawing(30, 40), "GIF"))
    (folder / "kind1_1.jpg").write_text("this is no image")
    (folder / "kind0_2.jpg").write_bytes(b"")
    return folder


IN_A_CHILD = """
import sys, warnings
from dataclasses import replace
import numpy as np
from fastpets import BadFileError, Loader
from fastpets.data.sources import from_folder
from fastpets.data.headers import DALI
warnings.simplefilter("ignore")
dataset = from_folder(sys.argv[1])
settings = {"size": 32, "batch_size": 64, "decoder": sys.argv[2]}
for _ in range(20):
    loader = Loader(dataset, **settings, on_bad_file="skip")
    assert sum(len(labels) for _, labels in loader) == 62, len(loader.dataset)
    assert len(loader.bad_files) == 2, loader.bad_files
    try:
        Loader(dataset, **settings)
    except BadFileError as error:
        assert set(error.problems) == set(loader.bad_files)
    else:
        raise AssertionError("no error")
    # The same with headers that say JPEG, as if the files had been replaced after the scan.
    decoders, sizes = np.full(64, DALI, np.uint8), np.full(64, 50, np.int32)
    headers = replace(loader.headers, decoders=decoders, heights=sizes, widths=sizes, problems={})
    loader = Loader(replace(dataset, headers=headers), **settings, on_bad_file="skip")
    delivered = sum(len(labels) for _, labels in loader)
    assert delivered == 62
    assert len(loader.bad_files) == 2
print("whole")
"""


def test_a_gif_a_text_and_an_empty_file_raise_or_are_skipped_without_a_crash(
    make_folder: Callable[..., Path], decoder: str
) -> None:
    folder = with_bad_files(make_folder(64))
    command = [sys.executable, "-c", IN_A_CHILD, folder, decoder]
    child = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout) == (0, "whole\n"), child.stderr


def test_a_bad_header_raises_before_training_and_names_the_file_and_what_to_do(
    make_folder: Callable[..., Path],
) -> None:
    with pytest.raises(BadFileError, match=r"kind0_2.jpg: 0 bytes, expected an image.*on_bad_file='skip'") as error:
        Loader(from_folder(with_bad_files(make_folder(64))))
    assert [Path(path).name for path in error.value.problems] == ["kind0_2.jpg", "kind1_1.jpg"]
    assert "\n" not in str(error.value)


def test_the_error_names_bad_files_of_training_and_validation_together(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    train, valid = fastpets.loaders(folder, size=8)
    culprits = [train.dataset.paths[0], valid.dataset.paths[0]]
    for path in culprits:
        Path(path).write_bytes(b"")
    with pytest.raises(BadFileError) as error:
        fastpets.loaders(folder, size=8)
    assert sorted(error.value.problems) == sorted(culprits)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_truncated_jpegs_raise_when_their_batch_is_due_and_all_of_it_are_named(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(16)
    for name in ("kind0_4.jpg", "kind1_5.jpg"):
        cut_short(folder / name)
    with pytest.raises(BadFileError, match="truncated") as error:
        list(Loader(from_folder(folder), size=SIZE, batch_size=16))
    assert [Path(path).name for path in error.value.problems] == ["kind0_4.jpg", "kind1_5.jpg"]


def test_truncated_jpegs_are_skipped_on_request_and_no_other_image_is_lost(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(20)
    whole = pixels_by_id(Loader(from_folder(folder), size=SIZE, batch_size=4, augment=True, drop_last=False))
    names = [Path(path).name for path in from_folder(folder).paths]
    culprits = ["kind0_12.jpg", "kind0_4.jpg", "kind1_5.jpg"]
    for name in culprits:
        cut_short(folder / name)
    loader = Loader(from_folder(folder), size=SIZE, batch_size=4, augment=True, drop_last=False, on_bad_file="skip")
    with pytest.warns(UserWarning, match="left out: .*truncated"):
        found = pixels_by_id(loader)
    assert sorted(Path(path).name for path in loader.bad_files) == culprits
    assert same(found, {i: image for i, image in whole.items() if names[i] not in culprits})
    assert len(pixels_by_id(loader)) == 17  # they are known now: no second warning


def test_a_batch_of_bad_files_only_is_left_out(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(9)
    dataset = from_folder(folder)
    for path in dataset.paths[3:6]:
        cut_short(Path(path))
    loader = Loader(dataset, size=SIZE, batch_size=3, on_bad_file="skip")
    with pytest.warns(UserWarning, match="left out"):
        assert [batch.ids.tolist() for batch in loader] == [[0, 1, 2], [6, 7, 8]]
    for path in dataset.paths:
        cut_short(Path(path))
    with pytest.warns(UserWarning, match="left out"):
        assert list(Loader(dataset, size=SIZE, batch_size=3, on_bad_file="skip")) == []


def test_epochs_of_files_that_are_known_to_be_bad_have_no_batch(make_folder: Callable[..., Path]) -> None:
    loader = Loader(from_folder(make_folder(6)), size=SIZE, batch_size=3, on_bad_file="skip")
    for path in loader.dataset.paths:
        cut_short(Path(path))
    with pytest.warns(UserWarning, match="left out"):
        assert list(loader) == []
    assert [list(loader) for _ in range(2)] == [[], []]


def test_an_image_that_only_pillow_decodes_is_used(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(8)
    image = drawing(40, 50, seed=4)
    (folder / "kind0_4.jpg").write_bytes(encode(image, "PNG")[:-1] + b"\0")  # the last checksum is wrong
    loader = Loader(from_folder(folder), size=40, batch_size=8, mean=(0,) * 3, std=(1 / 255,) * 3)
    for _ in range(2):
        found = pixels_by_id(loader)
        assert len(found) == 8
        seen = found[[Path(path).name for path in loader.dataset.paths].index("kind0_4.jpg")].permute(1, 2, 0)
        assert np.array_equal(seen.round(), np.array(image)[:, 5:45])
    assert loader.bad_files == {}


def test_files_deleted_or_damaged_after_the_scan_are_bad_files(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(12)
    loader = Loader(from_folder(folder), size=SIZE, batch_size=12, on_bad_file="skip")
    (folder / "kind0_0.jpg").unlink()
    drawing(99, 98).save(folder / "kind1_1.jpg")
    (folder / "kind0_2.jpg").write_bytes(b"GIF89a")
    with pytest.warns(UserWarning, match="left out"):
        assert len(pixels_by_id(loader)) == 10
    assert {Path(path).name for path in loader.bad_files} == {"kind0_0.jpg", "kind0_2.jpg"}


def test_an_image_of_more_than_max_pixels_is_a_bad_file(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(3)
    drawing(100, 200).save(folder / "kind0_9.png")
    assert len(Loader(folder, max_pixels=20_000).dataset) == 4
    with pytest.raises(BadFileError, match=r"kind0_9.png: 200 x 100 px, expected at most 19,999 pixels; shrink it, or"):
        Loader(folder, max_pixels=19_999)


def test_a_message_is_one_line_for_any_file_name(tmp_path: Path) -> None:
    name = "two\nlines, größer \udcff_1.jpg"
    (tmp_path / name).write_bytes(b"")
    with pytest.raises(BadFileError) as raised:
        Loader(tmp_path)
    message = str(raised.value)
    assert message.isprintable()
    assert r"two\nlines, größer \udcff_1.jpg: 0 bytes, expected an image" in message


@pytest.mark.parametrize("epoch", [0, 1])
def test_a_file_deleted_during_training_raises_when_its_batch_is_due(
    make_folder: Callable[..., Path], epoch: int
) -> None:
    loader = Loader(make_folder(12), size=SIZE, batch_size=2)
    for _ in range(epoch):
        list(loader)
    Path(loader.dataset.paths[9]).unlink()
    for _ in range(2):  # in every epoch, while it is missing
        delivered: list[list[int]] = []
        with pytest.raises(BadFileError, match="unreadable"):
            delivered.extend(batch.ids.tolist() for batch in loader)
        assert delivered == [[0, 1], [2, 3], [4, 5], [6, 7]]


def test_a_bad_file_is_replaced_by_another_image_with_its_own_random_parameters(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(8)
    settings = {"size": SIZE, "augment": True, "drop_last": False, "batch_size": 4, "shuffle": False}
    (folder / "kind0_2.jpg").write_bytes((folder / "kind0_2.jpg").read_bytes()[:1500])  # parses, and does not decode
    loader = Loader(folder, on_bad_file="replace", **settings)
    with pytest.warns(UserWarning, match=r"replaced: .*kind0_2.jpg"):
        epochs = [list(loader), list(loader)]
    position = [Path(path).name for path in loader.dataset.paths].index("kind0_2.jpg")
    for batches in epochs:
        assert [len(batch.ids) for batch in batches] == [4, 4]
        delivered = np.concatenate([batch.ids for batch in batches])
        assert delivered[position] == position + 1  # the next one stands in
        images = torch.cat([batch.images for batch in batches])
        assert not torch.equal(images[position], images[position + 1])
        assert sorted(set(delivered.tolist())) == [i for i in range(8) if i != position]
    assert list(loader.bad_files) == [str(folder / "kind0_2.jpg")]


@pytest.mark.parametrize("cache", ["none", "host", "disk"])
def test_an_image_that_is_no_longer_as_its_header_said_is_loaded_by_its_new_header(
    make_folder: Callable[..., Path], tmp_path: Path, cache: str
) -> None:
    folder = make_folder(20)
    settings = {"size": 24, "augment": True, "batch_size": 8, "drop_last": False, "shuffle": True}
    loader = Loader(from_folder(folder), **settings, cache=cache, cache_dir=tmp_path / "cache")
    drawing(33, 71).save(folder / "kind0_4.jpg")
    drawing(9, 40).save(folder / "kind1_5.png", "PNG")
    (folder / "kind1_5.png").replace(folder / "kind1_5.jpg")
    for _ in range(2):
        expected = Loader(from_folder(folder), **settings)
        expected.set_epoch(loader.epoch)
        assert same(pixels_by_id(loader), pixels_by_id(expected))
    assert loader.bad_files == {}
