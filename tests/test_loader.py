"""The loader's promises: how pixels are made changes none of them, and nothing is lost on the way."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import fastpets
from fastpets import Augment, BadFileError, Batch, FastpetsError, Loader
from fastpets.items import Items, from_folder
from fastpets.kernels import reference
from tests.pictures import drawing, encode

SIZE = 32


def items_of(folder: Path) -> Items:
    return from_folder(folder)


def pixels_by_id(loader: Loader) -> dict[int, torch.Tensor]:
    """One epoch's images by item id."""
    return {int(i): image for batch in loader for i, image in zip(batch.ids, batch.images, strict=True)}


def same(one: dict[int, torch.Tensor], other: dict[int, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[i], other[i]) for i in one)


@pytest.mark.parametrize(("batch_size", "num_workers"), [(7, 1), (7, 4), (64, 4)])
def test_pixels_depend_on_seed_epoch_and_id_alone(sample: Path, batch_size: int, num_workers: int) -> None:
    items = items_of(sample).select(np.arange(0, 480, 5))  # all kinds of files, some of them shrunk

    def loader(batch_size: int, num_workers: int) -> Loader:
        return Loader(items, size=SIZE, augment=True, drop_last=False, batch_size=batch_size, num_workers=num_workers)

    expected, found = loader(64, 1), loader(batch_size, num_workers)
    for loaders in (expected, found):
        loaders.set_epoch(3)
    assert same(pixels_by_id(expected), pixels_by_id(found))


def test_epochs_and_seeds_differ_and_an_epoch_can_be_had_again(make_folder: Callable[..., Path]) -> None:
    items = items_of(make_folder())
    loader = Loader(items, size=SIZE, augment=True, drop_last=False)
    first, second = pixels_by_id(loader), pixels_by_id(loader)
    assert not any(torch.equal(first[i], second[i]) for i in first)
    loader.set_epoch(0)
    assert same(pixels_by_id(loader), first)
    other = pixels_by_id(Loader(items, size=SIZE, augment=True, drop_last=False, seed=1))
    assert not any(torch.equal(first[i], other[i]) for i in first)


def test_validation_is_the_centre_square_resized_once_and_normalised(
    make_folder: Callable[..., Path],
) -> None:
    loader = Loader(items_of(make_folder(9)), size=SIZE, presize=460)
    found = pixels_by_id(loader)
    assert list(found) == list(range(9))
    for i, path in enumerate(loader.items.paths):
        picture = torch.from_numpy(np.array(Image.open(path)))
        height, width = picture.shape[:2]
        side = min(height, width)
        if side > 2 * SIZE:
            continue  # shrunk by DALI's filter first, which is another test's
        scale = side / SIZE
        matrix = torch.tensor([[scale, 0, (width - side) / 2], [0, scale, (height - side) / 2], [0, 0, 1]])
        pixels = reference.warp([picture], matrix[None].double(), SIZE)[0]
        mean, std = torch.tensor(loader.mean), torch.tensor(loader.std)
        step = 1 / 255 / min(loader.std)  # one 8-bit step, where float32 and float64 round to different sides
        assert ((pixels / 255 - mean) / std - found[i].permute(1, 2, 0)).abs().max() <= step * 1.001


def test_validation_pixels_are_close_to_pillows_own_crop_and_resize(pets: Path) -> None:
    loader = Loader(items_of(pets).select(np.arange(0, 370, 10)), size=224, mean=(0,) * 3, std=(1 / 255,) * 3)
    worst = []
    for i, image in pixels_by_id(loader).items():
        picture = ImageOps.exif_transpose(Image.open(loader.items.paths[i])).convert("RGB")
        expected = ImageOps.fit(picture, (224, 224), Image.Resampling.BILINEAR)
        worst.append((image.permute(1, 2, 0) - torch.from_numpy(np.array(expected))).abs().mean())
    # Pillow's filter is wider where it shrinks: a few steps of 255 at edges, none of it a shift or another crop.
    assert max(worst) < 10
    assert float(np.mean(worst)) < 4


def test_batches_have_the_promised_form(make_folder: Callable[..., Path]) -> None:
    items = items_of(make_folder(20))
    loader = Loader(items, size=SIZE, batch_size=8)
    batches = list(loader)
    assert [len(batch.ids) for batch in batches] == [8, 8, 4]
    images, labels = batches[0]
    assert images.shape == (8, 3, SIZE, SIZE)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64
    assert np.concatenate([batch.labels for batch in batches]).tolist() == items.labels.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_the_float32_ones_rounded(
    make_folder: Callable[..., Path], dtype: torch.dtype
) -> None:
    items = items_of(make_folder(3))
    full, half = (next(iter(Loader(items, size=SIZE, dtype=kind))).images for kind in (torch.float32, dtype))
    assert torch.equal(half, full.to(dtype))


@pytest.mark.parametrize("num_pictures", [5, 16, 17, 40])
def test_the_length_is_the_number_of_batches_every_time(make_folder: Callable[..., Path], num_pictures: int) -> None:
    items = items_of(make_folder(num_pictures))
    for drop_last in (False, True):
        loader = Loader(items, size=8, batch_size=16, augment=True, drop_last=drop_last)
        assert [sum(1 for _ in loader) for _ in range(3)] == [len(loader)] * 3
        assert len(loader) >= 1


def test_training_drops_the_incomplete_last_batch_and_validation_does_not(
    make_folder: Callable[..., Path],
) -> None:
    train, valid = fastpets.loaders(make_folder(25), size=8, batch_size=3)
    assert [len(labels) for _, labels in train] == [3] * 6
    assert [len(labels) for _, labels in valid] == [3, 2]
    assert train.classes == valid.classes


def test_a_loop_left_in_its_middle_costs_the_next_one_nothing(make_folder: Callable[..., Path]) -> None:
    loader = Loader(items_of(make_folder()), size=SIZE, batch_size=3, augment=True, drop_last=False)
    expected = Loader(loader.items, size=SIZE, batch_size=3, augment=True, drop_last=False)
    for leave_after in range(7):
        for number, _ in enumerate(loader):
            if number == leave_after:
                break
        expected.set_epoch(loader.epoch)
        assert same(pixels_by_id(loader), pixels_by_id(expected))
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("fastpets")]


def test_an_exception_in_the_body_leaves_nothing_behind(make_folder: Callable[..., Path]) -> None:
    loader = Loader(items_of(make_folder()), size=SIZE, batch_size=3)

    def fail() -> None:
        for _ in loader:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert len(pixels_by_id(loader)) == 20


def test_nested_loops_over_one_loader_do_not_disturb_each_other(make_folder: Callable[..., Path]) -> None:
    loader = Loader(items_of(make_folder(6)), size=SIZE, batch_size=2)
    expected = pixels_by_id(loader)
    for outer in loader:
        assert same(pixels_by_id(loader), expected)
        assert torch.equal(outer.images[0], expected[int(outer.ids[0])])


def test_a_batch_that_somebody_keeps_is_not_overwritten(make_folder: Callable[..., Path]) -> None:
    loader = Loader(items_of(make_folder()), size=SIZE, batch_size=2)
    kept = [(batch, batch.images.clone()) for batch in loader]
    list(loader)
    assert all(torch.equal(batch.images, copy) for batch, copy in kept)


def test_batch_is_a_pair_that_libraries_can_rebuild() -> None:
    batch = Batch(torch.zeros(2, 3), torch.ones(2), np.array([4, 7]))
    images, labels = batch
    assert len(batch) == 2
    assert batch.ids.tolist() == [4, 7]
    for rebuilt in (type(batch)(*batch), type(batch)(iter(batch)), batch._replace(images=images)):
        assert rebuilt.images is images
        assert rebuilt.labels is labels
        assert rebuilt.ids is None


# --- files that cannot be used ---


def with_bad_files(folder: Path) -> Path:
    """64 pictures, of which one is a GIF under another name, one a text and one empty."""
    (folder / "kind0_0.jpg").write_bytes(encode(drawing(30, 40), "GIF"))
    (folder / "kind1_1.jpg").write_text("this is no picture")
    (folder / "kind0_2.jpg").write_bytes(b"")
    return folder


IN_A_CHILD = """
import sys, warnings
import numpy as np
from fastpets import BadFileError, Loader
from fastpets.items import from_folder
from fastpets.manifest import DALI
warnings.simplefilter("ignore")
items = from_folder(sys.argv[1])
for _ in range(20):
    loader = Loader(items, size=32, batch_size=64, on_bad_file="skip")
    assert sum(len(labels) for _, labels in loader) == 62, len(loader.items)
    assert len(loader.bad_files) == 2, loader.bad_files
    try:
        Loader(items, size=32, batch_size=64)
    except BadFileError as error:
        assert set(error.problems) == set(loader.bad_files)
    else:
        raise AssertionError("no error")
    # And with a manifest that believes they are JPEGs, as if they had been replaced after the scan.
    loader.bad_files.clear()
    loader.items, count = items, len(items)
    kinds, sizes = np.full(count, DALI, np.uint8), np.full(count, 50, np.int32)
    loader.manifest = type(loader.manifest)(kinds, sizes, sizes, {})
    delivered = sum(len(labels) for _, labels in loader)
    assert delivered + len(loader.bad_files) == 64
    assert len(loader.bad_files) >= 3
print("whole")
"""


def test_a_gif_a_text_and_an_empty_file_end_in_the_promised_error_or_skip_never_in_a_crash(
    make_folder: Callable[..., Path],
) -> None:
    folder = with_bad_files(make_folder(64))
    child = subprocess.run([sys.executable, "-c", IN_A_CHILD, folder], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stdout) == (0, "whole\n"), child.stderr


def test_a_bad_header_raises_before_training_and_names_the_file_and_what_to_do(
    make_folder: Callable[..., Path],
) -> None:
    with pytest.raises(BadFileError, match=r"kind0_2.jpg: 0 bytes, expected a picture.*on_bad_file='skip'") as error:
        Loader(items_of(with_bad_files(make_folder(64))))
    assert [Path(path).name for path in error.value.problems] == ["kind0_2.jpg", "kind1_1.jpg"]
    assert "\n" not in str(error.value)


def test_the_error_names_bad_files_of_training_and_validation_together(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(20)
    train, valid = fastpets.loaders(folder, size=8)
    culprits = [train.items.paths[0], valid.items.paths[0]]
    for path in culprits:
        Path(path).write_bytes(b"")
    with pytest.raises(BadFileError) as error:
        fastpets.loaders(folder, size=8)
    assert sorted(error.value.problems) == sorted(culprits)


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def test_jpegs_cut_short_raise_when_their_turn_comes_all_of_the_batch_at_once(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(16)
    for name in ("kind0_4.jpg", "kind1_5.jpg"):
        cut_short(folder / name)
    with pytest.raises(BadFileError, match="truncated") as error:
        list(Loader(items_of(folder), size=SIZE, batch_size=16))
    assert [Path(path).name for path in error.value.problems] == ["kind0_4.jpg", "kind1_5.jpg"]


def test_jpegs_cut_short_are_skipped_on_request_and_nothing_else_is_lost(
    make_folder: Callable[..., Path],
) -> None:
    folder = make_folder(20)
    whole = pixels_by_id(Loader(items_of(folder), size=SIZE, batch_size=4, augment=True, drop_last=False))
    names = [Path(path).name for path in items_of(folder).paths]
    culprits = ["kind0_12.jpg", "kind0_4.jpg", "kind1_5.jpg"]
    for name in culprits:
        cut_short(folder / name)
    loader = Loader(items_of(folder), size=SIZE, batch_size=4, augment=True, drop_last=False, on_bad_file="skip")
    with pytest.warns(UserWarning, match="left out .*truncated"):
        found = pixels_by_id(loader)
    assert sorted(Path(path).name for path in loader.bad_files) == culprits
    assert same(found, {i: image for i, image in whole.items() if names[i] not in culprits})
    assert len(pixels_by_id(loader)) == 17  # they are known now: no second warning, no second search


def test_a_batch_of_nothing_but_bad_files_is_passed_over(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(9)
    items = items_of(folder)
    for path in items.paths[3:6]:
        cut_short(Path(path))
    loader = Loader(items, size=SIZE, batch_size=3, on_bad_file="skip")
    with pytest.warns(UserWarning, match="left out"):
        assert [batch.ids.tolist() for batch in loader] == [[0, 1, 2], [6, 7, 8]]
    for path in items.paths:
        cut_short(Path(path))
    with pytest.warns(UserWarning, match="left out"):
        assert list(Loader(items, size=SIZE, batch_size=3, on_bad_file="skip")) == []


def test_a_picture_that_dali_refuses_and_pillow_takes_is_used(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(8)
    picture = drawing(40, 50, seed=4)
    (folder / "kind0_4.jpg").write_bytes(encode(picture, "PNG")[:-1] + b"\0")  # the last check sum is wrong
    loader = Loader(items_of(folder), size=40, batch_size=8, mean=(0,) * 3, std=(1 / 255,) * 3)
    for _ in range(2):
        found = pixels_by_id(loader)
        assert len(found) == 8
        seen = found[[Path(path).name for path in loader.items.paths].index("kind0_4.jpg")].permute(1, 2, 0)
        assert np.array_equal(seen.round(), np.array(picture)[:, 5:45])
    assert loader.bad_files == {}


def test_files_deleted_and_replaced_after_the_scan_are_bad_files(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(12)
    loader = Loader(items_of(folder), size=SIZE, batch_size=12, on_bad_file="skip")
    (folder / "kind0_0.jpg").unlink()
    drawing(99, 98).save(folder / "kind1_1.jpg")
    (folder / "kind0_2.jpg").write_bytes(b"GIF89a")
    with pytest.warns(UserWarning, match="left out"):
        assert len(pixels_by_id(loader)) == 9
    problems = {Path(path).name: problem for path, problem in loader.bad_files.items()}
    assert set(problems) == {"kind0_0.jpg", "kind1_1.jpg", "kind0_2.jpg"}
    assert problems["kind1_1.jpg"].endswith("it changed since the scan")


# --- arguments ---


def test_a_gpu_that_is_not_there_is_said_in_one_line(make_folder: Callable[..., Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(FastpetsError, match="device cuda: torch sees no GPU"):
        Loader(items_of(make_folder(2)), device="cuda")
    assert Loader(items_of(make_folder(2, name="other"))).device == torch.device("cpu")


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"size": 0}, {"presize": -1}])
def test_impossible_sizes_are_refused_by_name(make_folder: Callable[..., Path], wrong: dict) -> None:
    with pytest.raises(FastpetsError, match=f"{next(iter(wrong))}: .*expected at least 1"):
        Loader(items_of(make_folder(2)), **wrong)


def test_a_loader_of_nothing_is_refused(make_folder: Callable[..., Path]) -> None:
    items = items_of(make_folder(2))
    with pytest.raises(FastpetsError, match="no picture to load: 0 items"):
        Loader(items.select(np.zeros(0, np.int64)))
    for path in items.paths:
        Path(path).write_bytes(b"")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(FastpetsError, match="2 items, of which 2 are bad"):
        Loader(items, on_bad_file="skip")


def test_augment_takes_settings_of_its_own(make_folder: Callable[..., Path]) -> None:
    items = items_of(make_folder(4))
    still = Augment(flip_p=0, affine_p=0, lighting_p=0, min_scale=1)
    calm = Loader(items, size=SIZE, augment=still, shuffle=False, drop_last=False, batch_size=4)
    assert calm.shuffle is False
    assert Loader(items, augment=True).augment == Augment()
    assert Loader(items).augment is None
    first, second = (next(iter(calm)).images for _ in range(2))
    # All that is left of the draws is where the square lies along the longer side.
    assert (first - second).abs().mean() < 2 * (first - first.flip(0)).abs().mean()
