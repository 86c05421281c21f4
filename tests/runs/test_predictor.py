"""The model of a run folder, and the images that it predicts."""

import copy
import functools
import io
import json
import pickle
import threading
from collections.abc import Callable, Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
import torch
from PIL import ExifTags, Image, ImageOps
from safetensors.torch import load_file, save_file

import fastpets
from fastpets.augment.preprocessing import Preprocessing
from fastpets.errors import BadFileError, FastpetsError, InvalidArgumentError
from fastpets.models.classifier import create_model
from fastpets.runs.predictor import load, save_model
from fastpets.training.options import TrainingOptions
from fastpets.training.train_step import TrainStep
from tests.images import drawing

ARCH = "squeezenet1_1"  # a small file
PREPROCESSING = Preprocessing(size=(32, 32), mean=(0.5, 0.5, 0.5), std=(0.1, 0.2, 0.3))


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    model = create_model(ARCH, 2, "none")
    save_model(folder, model, arch=ARCH, classes=("cat", "dog"), preprocessing=PREPROCESSING)
    return folder


@pytest.fixture
def spoiled(run: Path, tmp_path: Path) -> Callable[[str, bytes], str]:
    """Returns the message of `load` for a run folder in which one file has other content."""

    def message(name: str, content: bytes) -> str:
        for file in ("model.json", "model.safetensors"):
            (tmp_path / file).write_bytes(content if file == name else (run / file).read_bytes())
        with pytest.raises(FastpetsError) as raised:
            load(tmp_path, "cpu")
        text = str(raised.value)
        assert text.startswith(f"{tmp_path / name}: ")
        assert "\n" not in text
        return text

    return message


def test_a_loaded_model_is_pretrained_so_that_it_can_be_fine_tuned(run: Path) -> None:
    saved = load(run, "cpu")
    assert (saved.model.mean, saved.model.std) == (PREPROCESSING.mean, PREPROCESSING.std)
    TrainStep(saved.model, TrainingOptions(), saved.device).freeze_to(-1)
    assert not saved.model.backbone.features[0].weight.requires_grad


def test_a_loaded_model_has_its_classes_which_another_learner_may_not_change(
    run: Path, make_folder: Callable[..., Path]
) -> None:
    predictor = load(run, "cpu")
    assert predictor.model.classes == ("cat", "dog")
    train, valid = fastpets.loaders(make_folder(20), size=32, batch_size=4, device="cpu")  # kind0 and kind1
    with pytest.raises(FastpetsError, match="cat"):
        fastpets.Learner(train, valid, predictor.model)


def test_a_loaded_model_is_described_in_a_line(run: Path) -> None:
    assert repr(load(run, "cpu")) == "Predictor(squeezenet1_1, 2 classes, 32 x 32 px, cpu)"


def test_a_loaded_model_can_be_pickled_and_copied(run: Path) -> None:
    saved = load(run, "cpu")
    images = torch.randn(2, 3, 32, 32)
    for other in (pickle.loads(pickle.dumps(saved)), copy.deepcopy(saved)):
        assert torch.equal(other.probabilities(images), saved.probabilities(images))


@pytest.mark.parametrize(
    ("field", "value", "expected"),
    [
        ("arch", None, "arch is None, not a name"),
        ("arch", ["resnet18"], "not a name"),
        ("arch", "resnet9000", "arch: 'resnet9000', expected one of torchvision's"),
        ("classes", "cd", "classes is not a list of different names"),  # two letters would fit the weights
        ("classes", {"cat": 0, "dog": 1}, "classes is not a list"),
        ("classes", [0, 1], "classes is not a list"),
        ("classes", ["cat", "cat"], "classes is not a list"),
        ("classes", ["cat", ["dog"]], "classes is not a list"),
        ("classes", [], "classes is not a list"),
        ("classes", ["cat", "dog", "pig"], ""),  # those of another model's weights
        ("preprocessing", None, "expected the description"),
        ("preprocessing", [], "missing or unknown"),
        ("preprocessing", "none", "missing or unknown"),
        ("preprocessing", {"size": [32, 32]}, "missing or unknown"),
        ("preprocessing", {**PREPROCESSING.to_dict(), "size": ["32", "32"]}, "size: '32', expected a whole number"),
        ("preprocessing", {**PREPROCESSING.to_dict(), "size": None}, "size: None"),
        ("preprocessing", {**PREPROCESSING.to_dict(), "size": [32] * 3}, "size: (32, 32, 32)"),
        ("preprocessing", {**PREPROCESSING.to_dict(), "mean": [10**400, 0, 0]}, "expected the description"),
        ("preprocessing", {**PREPROCESSING.to_dict(), "mean": [[1], 0, 0]}, "mean: "),
        ("preprocessing", {**PREPROCESSING.to_dict(), "std": [float("nan"), 1, 1]}, "std: "),
        ("preprocessing", {**PREPROCESSING.to_dict(), "borders": ["reflect"]}, "borders: "),
        ("preprocessing", {**PREPROCESSING.to_dict(), "max_pixels": 1e9}, "max_pixels: "),
    ],
)
def test_a_description_with_other_values_is_an_error(
    run: Path, spoiled: Callable[[str, bytes], str], field: str, value: Any, expected: str
) -> None:
    description = json.loads((run / "model.json").read_text())
    if field == "classes" and len(value) == 3:
        with pytest.raises(AssertionError, match=r"model\.safetensors"):  # the other file is named
            spoiled("model.json", json.dumps(description | {field: value}).encode())
        return
    assert expected in spoiled("model.json", json.dumps(description | {field: value}).encode())


@pytest.mark.parametrize("field", ["arch", "classes", "preprocessing"])
def test_a_description_that_lacks_a_field_is_an_error(
    run: Path, spoiled: Callable[[str, bytes], str], field: str
) -> None:
    description = json.loads((run / "model.json").read_text())
    del description[field]
    assert f"'{field}' is missing" in spoiled("model.json", json.dumps(description).encode())


@pytest.mark.parametrize(
    "content",
    [b"", b"[]", b"null", b"3", b'"arch"', b"{", b"\xff\xfe{", b"\0" * 100, b"[" * 100_000, b"9" * 5000, b"{}", b"NaN"],
    ids=lambda content: repr(content[:8]),
)
def test_a_description_that_is_no_description_is_an_error(spoiled: Callable[[str, bytes], str], content: bytes) -> None:
    assert "expected the description of a trained model" in spoiled("model.json", content)


def test_cut_and_altered_weights_are_errors_or_load(run: Path, spoiled: Callable[[str, bytes], str]) -> None:
    """The first bytes of a safetensors file are the length of its header, and the header, which is JSON."""
    content = (run / "model.safetensors").read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    random = np.random.default_rng(0)
    for kept in [0, 4, 8, 100, header - 1, header, len(content) - 1, *random.integers(0, len(content), 10)]:
        assert "expected the weights of a model of the same arch" in spoiled("model.safetensors", content[:kept])
    for length in (2**63, 2**64 - 1, len(content), 0):
        spoiled("model.safetensors", length.to_bytes(8, "little") + content[8:])
    for position in random.integers(8, header, 50).tolist():
        altered = bytearray(content)
        altered[position] ^= 1 << int(random.integers(8))
        try:
            spoiled("model.safetensors", bytes(altered))
        except pytest.fail.Exception as outcome:
            assert "DID NOT RAISE" in str(outcome)  # noqa: PT017


def test_weights_of_other_kinds_are_errors(run: Path, spoiled: Callable[[str, bytes], str], tmp_path: Path) -> None:
    weights = load_file(run / "model.safetensors")
    name = "head.6.weight"
    others = [
        {},
        {"0": torch.zeros(2)},
        {key: value for key, value in weights.items() if key != name},
        weights | {"more": torch.zeros(1)},
        weights | {name: weights[name][:1].clone()},
        weights | {name: weights[name].flatten()},
    ]
    for other in others:
        save_file(other, tmp_path / "other")
        spoiled("model.safetensors", (tmp_path / "other").read_bytes())
    for thing in ([torch.zeros(1)], torch.zeros(1), {1: torch.zeros(1)}, weights):  # by torch.save
        torch.save(thing, tmp_path / "other")
        spoiled("model.safetensors", (tmp_path / "other").read_bytes())
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "model.json").write_bytes((run / "model.json").read_bytes())
    (tmp_path / "folder" / "model.safetensors").mkdir()
    with pytest.raises(FastpetsError, match=r"model\.safetensors: "):
        load(tmp_path / "folder", "cpu")


@pytest.fixture
def http_folder(tmp_path: Path) -> Iterator[str]:
    """The URL of a web server that has the files of `tmp_path`."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(SimpleHTTPRequestHandler, directory=str(tmp_path)))
    threading.Thread(target=server.serve_forever).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def drawn(orientation: int = 1) -> Image.Image:
    """An image as Pillow reads it from a PNG with an EXIF orientation."""
    exif, file = Image.Exif(), io.BytesIO()
    exif[ExifTags.Base.Orientation] = orientation
    drawing(70, 90, seed=3).save(file, "PNG", exif=exif)
    return Image.open(file)


def upright(orientation: int = 1) -> np.ndarray:
    return np.array(ImageOps.exif_transpose(drawn(orientation)))


def forms(image: Image.Image, path: Path) -> dict[str, Any]:
    """The same image in every form that `predict` accepts."""
    pixels = np.array(ImageOps.exif_transpose(image))
    image.save(path, exif=image.getexif())
    return {
        "str": str(path),
        "Path": path,
        "bytes": path.read_bytes(),
        "memoryview": memoryview(path.read_bytes()),
        "Pillow": image,
        "array": pixels,
        "tensor": torch.from_numpy(pixels).movedim(-1, 0),
    }


@pytest.mark.parametrize("orientation", [1, 6])
def test_an_image_has_the_same_classes_in_every_form(run: Path, tmp_path: Path, orientation: int) -> None:
    predictor = fastpets.load(run, "cpu")
    given = forms(drawn(orientation), tmp_path / "image.png")
    (batch,) = predictor.loader([given["str"]])
    expected = predictor.probabilities(batch.images)[0]
    results = predictor.predict(list(given.values()))
    for form, result in zip(given, results, strict=True):
        assert [name for name, _ in result] == [("cat", "dog")[label] for label in expected.argsort(descending=True)]
        assert [value for _, value in result] == pytest.approx(expected.sort(descending=True).values.tolist(), abs=1e-5)
        assert predictor.predict(given[form]) == [(name, pytest.approx(value, abs=1e-5)) for name, value in result]
    assert predictor.predict(given["array"], top=1) == [(results[0][0][0], pytest.approx(results[0][0][1], abs=1e-5))]


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "CMYK", "I;16", "F"])
def test_images_of_pillow_in_any_mode_have_the_classes_of_their_files(run: Path, tmp_path: Path, mode: str) -> None:
    gray = np.asarray(drawing(70, 90, seed=3).convert("L"))
    if mode in ("I;16", "F"):
        image = Image.fromarray(gray.astype(np.uint16) * 257 if mode == "I;16" else gray.astype(np.float32) / 255)
    else:
        image = drawing(70, 90, seed=3).convert(mode)
    image.save(tmp_path / "image.tif")
    predictor, info = fastpets.load(run, "cpu"), dict(image.info)
    with Image.open(tmp_path / "image.tif") as opened:
        of_opened, of_drawn, of_file = predictor.predict([opened, image, tmp_path / "image.tif"])
    assert of_opened == of_drawn == [(name, pytest.approx(value, abs=1e-5)) for name, value in of_file]
    assert image.info == info


def test_repeated_images_are_all_predicted_and_no_images_are_none(run: Path, tmp_path: Path) -> None:
    predictor = fastpets.load(run, "cpu")
    given = forms(drawn(), tmp_path / "image.png")
    assert len(predictor.predict([given["Path"], given["bytes"], given["Path"]], batch_size=2)) == 3
    assert predictor.predict([]) == []


def test_a_url_is_read_from_a_server(run: Path, tmp_path: Path, http_folder: str) -> None:
    forms(drawn(), tmp_path / "image.png")
    predictor = fastpets.load(run, "cpu")
    assert predictor.predict(f"{http_folder}/image.png") == predictor.predict(tmp_path / "image.png")


def test_nothing_remains_in_memory_or_in_the_cache_of_headers(run: Path, cache: Path) -> None:
    before = sorted(cache.rglob("*"))
    predictor = fastpets.load(run, "cpu")
    predictor.predict(upright())
    with pytest.raises(BadFileError):
        predictor.predict([upright(), b"no image"])
    assert fsspec.filesystem("memory").find("fastpets") == []
    assert sorted(cache.rglob("*")) == before


def test_bad_images_are_named(run: Path, tmp_path: Path) -> None:
    predictor = fastpets.load(run, "cpu")
    with pytest.raises(BadFileError) as raised:
        predictor.predict([upright(), b"no image", tmp_path / "missing.jpg"])
    assert list(raised.value.problems) == ["images[1]", str(tmp_path / "missing.jpg")]
    with pytest.raises(BadFileError, match="images: "):
        predictor.predict(b"no image")


@pytest.mark.parametrize(
    ("image", "found"),
    [
        (7, "int"),
        (np.zeros((8, 8, 3)), r"an array \(8, 8, 3\) float64"),
        (np.zeros((8, 8, 4), np.uint8), r"an array \(8, 8, 4\) uint8"),
        (torch.zeros(3, 8, 8), r"a tensor \(3, 8, 8\) float32"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), r"a tensor \(2, 3, 8, 8\) uint8"),
    ],
)
def test_what_is_no_image_is_an_error(run: Path, image: Any, found: str) -> None:
    predictor = fastpets.load(run, "cpu")
    with pytest.raises(InvalidArgumentError, match=f"^images: {found}, expected a path, bytes, an image of Pillow"):
        predictor.predict(image)
    with pytest.raises(InvalidArgumentError, match=r"^top: 0, expected"):
        predictor.predict(upright(), top=0)


def test_labels_of_a_loader_are_those_of_the_models_classes(run: Path, tmp_path: Path) -> None:
    saved = load(run, "cpu")
    for name in ("dog_1.jpg", "dog_2.jpg"):
        drawing(40, 50).save(tmp_path / name)
    loader = saved.loader(tmp_path, label_from="name")
    assert (loader.classes, loader.dataset.labels.tolist()) == (("cat", "dog"), [1, 1])
    assert [label for _, labels in loader for label in labels.tolist()] == [1, 1]
    drawing(40, 50).save(tmp_path / "wolf_3.jpg")
    with pytest.raises(
        FastpetsError, match=r"wolf_3.jpg has class 'wolf', which has no training images: 1 of 3 images"
    ):
        saved.loader(tmp_path, label_from="name")
    assert len(saved.loader(tmp_path).dataset) == 3  # without labels
