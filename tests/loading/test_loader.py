"""The Loader: pixels by seed, epoch and id, the form of batches, its arguments and their defaults."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

import fastpets
from fastpets import Augment, Batch, FastpetsError, Loader, pipelines
from fastpets.data.sources import from_folder
from fastpets.kernels import reference
from fastpets.loading import dali_decoding as decoding
from tests.epochs import pixels_by_id, same
from tests.images import drawing

SIZE = 32


@pytest.mark.parametrize(("batch_size", "num_workers"), [(7, 1), (7, 4), (64, 4)])
def test_pixels_depend_on_seed_epoch_and_id_alone(sample: Path, batch_size: int, num_workers: int) -> None:
    dataset = from_folder(sample).select(
        np.arange(0, 480, 5)
    )  # files of all formats, some of them large enough to be shrunk

    def loader(batch_size: int, num_workers: int) -> Loader:
        return Loader(dataset, size=SIZE, augment=True, drop_last=False, batch_size=batch_size, num_workers=num_workers)

    expected, found = loader(64, 1), loader(batch_size, num_workers)
    for loaders in (expected, found):
        loaders.set_epoch(3)
    assert same(pixels_by_id(expected), pixels_by_id(found))


def test_epochs_and_seeds_differ_and_set_epoch_repeats_an_epoch(make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder())
    loader = Loader(dataset, size=SIZE, augment=True, drop_last=False)
    first, second = pixels_by_id(loader), pixels_by_id(loader)
    assert not any(torch.equal(first[i], second[i]) for i in first)
    loader.set_epoch(0)
    assert same(pixels_by_id(loader), first)
    other = pixels_by_id(Loader(dataset, size=SIZE, augment=True, drop_last=False, seed=1))
    assert not any(torch.equal(first[i], other[i]) for i in first)


def test_validation_resizes_the_largest_centre_crop_of_the_outputs_aspect_ratio_and_normalises_it(
    make_folder: Callable[..., Path],
) -> None:
    loader = Loader(from_folder(make_folder(9)), size=(SIZE, 2 * SIZE))
    found = pixels_by_id(loader)
    assert list(found) == list(range(9))
    for i, path in enumerate(loader.dataset.paths):
        image = torch.from_numpy(np.array(Image.open(path)))
        height, width = image.shape[:2]
        scale = min(height / SIZE, width / (2 * SIZE))  # pixels of the image to one of the output
        left, top = (width - scale * 2 * SIZE) / 2, (height - scale * SIZE) / 2
        matrix = torch.tensor([[scale, 0, left], [0, scale, top], [0, 0, 1]])
        samples, spread = torch.tensor([math.ceil(scale / 2)]), torch.tensor([math.sqrt(max(0, 1 - 0.85 / scale**2))])
        pixels = reference.warp([image], matrix[None].double(), samples, spread, loader.preprocessing.size)[0].round()
        mean, std = torch.tensor(loader.preprocessing.mean), torch.tensor(loader.preprocessing.std)
        step = 1 / 255 / min(loader.preprocessing.std)  # float32 and float64 may round to neighbouring 8-bit values
        assert ((pixels / 255 - mean) / std - found[i].permute(1, 2, 0)).abs().max() <= step * 1.001


def test_validation_pixels_are_close_to_pillows_crop_and_resize(pets: Path) -> None:
    loader = Loader(from_folder(pets).select(np.arange(0, 370, 10)), size=224, mean=(0,) * 3, std=(1 / 255,) * 3)
    worst = []
    for i, image in pixels_by_id(loader).items():
        upright = ImageOps.exif_transpose(Image.open(loader.dataset.paths[i])).convert("RGB")
        expected = ImageOps.fit(upright, (224, 224), Image.Resampling.BILINEAR)
        worst.append((image.permute(1, 2, 0) - torch.from_numpy(np.array(expected))).abs().mean())
    # Pillow's filter is wider when it shrinks: a few steps of 255 at edges. A shift or another crop differs by more.
    assert max(worst) < 10
    assert float(np.mean(worst)) < 4


def test_shapes_dtypes_memory_format_and_labels_of_batches(make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder(20))
    loader = Loader(dataset, size=SIZE, batch_size=8)
    batches = list(loader)
    assert [len(batch.ids) for batch in batches] == [8, 8, 4]
    images, labels = batches[0]
    assert images.shape == (8, 3, SIZE, SIZE)
    assert images.dtype == torch.float32
    assert images.is_contiguous(memory_format=torch.channels_last)
    assert labels.dtype == torch.int64
    assert np.concatenate([batch.labels for batch in batches]).tolist() == dataset.labels.tolist()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_images_are_rounded_float32_images(make_folder: Callable[..., Path], dtype: torch.dtype) -> None:
    dataset = from_folder(make_folder(3))
    full, half = (next(iter(Loader(dataset, size=SIZE, dtype=kind))).images for kind in (torch.float32, dtype))
    assert torch.equal(half, full.to(dtype))


def test_uint8_output_is_the_float_output_before_normalisation_rounded(make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder(6))
    settings = {"size": SIZE, "augment": True, "shuffle": False, "drop_last": False}
    scale = {"mean": (0,) * 3, "std": (1 / 255,) * 3}
    pixels, values = (
        next(iter(Loader(dataset, output="uint8", **settings))),
        next(iter(Loader(dataset, **scale, **settings))),
    )
    assert pixels.images.dtype == torch.uint8
    assert pixels.images.is_contiguous(memory_format=torch.channels_last)
    assert (pixels.images - values.images).abs().max() <= 0.5 + 1e-3  # its adjusted values are rounded to whole steps


def test_torchvisions_trivial_augment_takes_uint8_batches(make_folder: Callable[..., Path]) -> None:
    from torchvision.transforms import v2

    trivial_augment = v2.TrivialAugmentWide()
    (images, _) = next(iter(Loader(from_folder(make_folder(6)), size=SIZE, output="uint8")))
    augmented = torch.stack([trivial_augment(image) for image in images])
    assert (augmented.shape, augmented.dtype) == (images.shape, torch.uint8)


@pytest.mark.parametrize("method", ["crop", "squish", "pad"])
@pytest.mark.parametrize("borders", ["reflect", "border", "zeros"])
def test_presize_method_decides_what_is_kept_and_borders_fill_the_rest(
    tmp_path: Path, method: str, borders: str
) -> None:
    red = np.full((20, 60, 3), (200, 0, 0), np.uint8)
    red[:, 20:40] = (0, 200, 0)  # the middle third is green
    Image.fromarray(red).save(tmp_path / "a_1.png")
    loader = Loader(from_folder(tmp_path), size=60, output="uint8", presize_method=method, borders=borders)
    image = next(iter(loader)).images[0].permute(1, 2, 0)
    green = image[30, :, 1].float().mean() / 200
    assert green == pytest.approx(1 if method == "crop" else 1 / 3, abs=0.02)
    beyond = {"reflect": 200, "border": 200, "zeros": 0}[borders]
    assert int(image[5, 5].sum()) == (beyond if method == "pad" else 200)


def test_augment_takes_the_name_of_a_policy(make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder(4))
    assert Loader(dataset, augment="trivial-geometric").augment.one_of
    assert Loader(dataset, augment="none").augment is None
    with pytest.raises(FastpetsError, match=r"augment: 'mild', expected .* none, fastai, trivial-geometric"):
        Loader(dataset, augment="mild")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"presize_method": "stretch"}, "presize_method: 'stretch', expected one of crop, squish, pad"),
        ({"borders": "mirror"}, "borders: 'mirror', expected one of reflect, border, zeros"),
        ({"output": "int"}, "output: 'int', expected one of float, uint8"),
        ({"cache": "tape"}, "cache: 'tape', expected one of none, host, device, disk, auto"),
        ({"dtype": torch.float64}, "dtype: 'float64', expected one of float32, float16, bfloat16, uint8"),
        ({"supersample": 0}, "supersample: 0, expected a value from 1 to 4"),
    ],
)
def test_unknown_choices_and_values_out_of_range_are_rejected(
    make_folder: Callable[..., Path], wrong: dict, message: str
) -> None:
    with pytest.raises(FastpetsError, match=message):
        Loader(from_folder(make_folder(2)), **wrong)


@pytest.mark.parametrize("num_images", [5, 16, 17, 40])
def test_the_length_is_the_number_of_batches_of_every_epoch(make_folder: Callable[..., Path], num_images: int) -> None:
    dataset = from_folder(make_folder(num_images))
    for drop_last in (False, True):
        loader = Loader(dataset, size=8, batch_size=16, augment=True, drop_last=drop_last)
        assert [sum(1 for _ in loader) for _ in range(3)] == [len(loader)] * 3
        assert len(loader) >= 1


def test_training_drops_the_incomplete_last_batch_and_validation_does_not(
    make_folder: Callable[..., Path],
) -> None:
    train, valid = fastpets.loaders(make_folder(25), size=8, batch_size=3)
    assert [len(labels) for _, labels in train] == [3] * 6
    assert [len(labels) for _, labels in valid] == [3, 2]
    assert train.classes == valid.classes


def test_a_batch_that_the_caller_keeps_is_not_overwritten(make_folder: Callable[..., Path]) -> None:
    loader = Loader(from_folder(make_folder()), size=SIZE, batch_size=2)
    kept = [(batch, batch.images.clone()) for batch in loader]
    list(loader)
    assert all(torch.equal(batch.images, copy) for batch, copy in kept)


def test_a_batch_unpacks_as_images_and_labels_and_can_be_rebuilt_from_them() -> None:
    batch = Batch(torch.zeros(2, 3), torch.ones(2), np.array([4, 7]))
    images, labels = batch
    assert len(batch) == 2
    assert batch.ids.tolist() == [4, 7]
    for rebuilt in (type(batch)(*batch), type(batch)(iter(batch)), batch._replace(images=images)):
        assert rebuilt.images is images
        assert rebuilt.labels is labels
        assert rebuilt.ids is None


def test_device_cuda_without_a_gpu_is_an_error_in_one_line(make_folder: Callable[..., Path]) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is a GPU here")
    with pytest.raises(FastpetsError, match="device: cuda, but torch finds no GPU"):
        Loader(from_folder(make_folder(2)), device="cuda")
    assert Loader(from_folder(make_folder(2, name="other"))).device == torch.device("cpu")


@pytest.mark.parametrize("wrong", [{"batch_size": 0}, {"size": 0}, {"presize": -1}])
def test_sizes_below_1_are_rejected_by_name(make_folder: Callable[..., Path], wrong: dict) -> None:
    with pytest.raises(FastpetsError, match=f"{next(iter(wrong))}: .*expected (at least|a value from) 1"):
        Loader(from_folder(make_folder(2)), **wrong)


def test_a_loader_without_usable_images_is_rejected(make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder(2))
    with pytest.raises(FastpetsError, match="source: no images"):
        Loader(dataset.select(np.zeros(0, np.int64)))
    for path in dataset.paths:
        Path(path).write_bytes(b"")
    with (
        pytest.warns(UserWarning, match="left out"),
        pytest.raises(FastpetsError, match="no image is left: all 2 files are bad"),
    ):
        Loader(dataset, on_bad_file="skip")


def test_augment_takes_a_policy_object(make_folder: Callable[..., Path]) -> None:
    dataset = from_folder(make_folder(4))
    still = Augment(p_flip=0, p_affine=0, p_lighting=0, min_scale=1)
    calm = Loader(dataset, size=SIZE, augment=still, shuffle=False, drop_last=False, batch_size=4)
    assert calm.sampler.shuffle is False
    assert Loader(dataset, augment=True).augment == Augment()
    assert Loader(dataset).augment is None
    first, second = (next(iter(calm)).images for _ in range(2))
    # The only random parameter left is the position of the square along the longer side.
    assert (first - second).abs().mean() < 2 * (first - first.flip(0)).abs().mean()


def test_a_training_set_of_less_than_a_batch_is_one_smaller_batch_with_a_warning(
    make_folder: Callable[..., Path],
) -> None:
    with pytest.warns(UserWarning, match="5 training images, expected at least batch_size=64") as caught:
        loader = Loader(make_folder(5), size=8, augment=True)
    assert caught[0].filename == __file__
    assert [len(labels) for _, labels in loader] == [5]


def test_a_last_batch_of_one_image_is_left_out_of_training_with_a_warning(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(9)
    with pytest.warns(UserWarning, match="9 training images in batches of 4"):
        loader = Loader(folder, size=8, batch_size=4, augment=True, drop_last=False)
    delivered = [[len(labels) for _, labels in loader] for _ in range(2)]
    assert delivered == [[4, 4]] * 2
    assert [len(labels) for _, labels in Loader(folder, size=8, batch_size=4)] == [4, 4, 1]


def test_a_batch_of_large_images_is_decoded_in_chunks_to_the_same_pixels(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(9):
        drawing(300 + 20 * number, 400, seed=number).save(tmp_path / f"a_{number}.jpg")
    expected = pixels_by_id(Loader(tmp_path, size=SIZE, augment=True, drop_last=False, batch_size=9))
    monkeypatch.setitem(Loader.__init__.__kwdefaults__, "decoder", "dali")
    taken = []
    take = pipelines.DecodePipeline.take
    monkeypatch.setattr(pipelines.DecodePipeline, "take", lambda self: (taken.append(found := take(self)), found)[1])
    monkeypatch.setattr(decoding, "CHUNK_BYTES", 3 * 450 * 400)  # one or two of them for each of two threads
    loader = Loader(tmp_path, size=SIZE, augment=True, drop_last=False, batch_size=9, num_workers=2)
    assert same(pixels_by_id(loader), expected)
    assert [len(sizes) for _, sizes in taken] == [2, 2, 2, 2, 1]
    (tmp_path / "a_5.jpg").write_bytes((tmp_path / "a_5.jpg").read_bytes()[:3000])  # parses, and does not decode
    skipping = Loader(
        tmp_path, size=SIZE, augment=True, drop_last=False, batch_size=9, num_workers=2, on_bad_file="skip"
    )
    with pytest.warns(UserWarning, match=r"left out: .*a_5.jpg"):
        found = pixels_by_id(skipping)
    del expected[5]
    assert same(found, expected)


def test_all_images_are_held_while_a_gpu_may_read_them(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU, kernels run after their launch; so what is held there must not be emptied after it."""
    from fastpets.loading.warping import HeldImages

    held = []
    monkeypatch.setattr(HeldImages, "hold", lambda self, images: held.append(images))
    loader = Loader(make_folder(12), size=SIZE, batch_size=4, decoder="dali")
    num_batches = sum(1 for _ in loader)
    for decoded, warped in zip(held[::2], held[1::2], strict=True):
        assert len(decoded) == sum(map(len, warped)) == 4
        assert decoded.block.data_ptr() == warped[0].block.data_ptr()  # DALI's memory, not a copy
    assert len(held) == 2 * num_batches == 6


def test_loaders_give_the_sampler_and_drop_last_to_the_training_loader_only(make_folder: Callable[..., Path]) -> None:
    train, valid = fastpets.loaders(make_folder(20), 4, size=8, sampler="balanced", drop_last=True, device="cpu")
    assert train.sampler.torch_sampler is not None
    assert valid.sampler.torch_sampler is None
    assert sorted(i for batch in valid for i in batch.ids.tolist()) == list(range(len(valid.dataset)))


@pytest.mark.parametrize("device", ["gpu", "mps", "cuda:-1", "meta"])
def test_another_kind_of_device_is_rejected_in_one_line(make_folder: Callable[..., Path], device: str) -> None:
    with pytest.raises(FastpetsError, match=f"^device: '{device}', expected auto, cpu, cuda or cuda:N$"):
        Loader(make_folder(2), device=device)
