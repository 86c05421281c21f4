"""The model of a run folder."""

import copy
import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from fastpets.augment.preprocessing import Preprocessing
from fastpets.errors import FastpetsError
from fastpets.models.classifier import create_model
from fastpets.runs.saved_model import load_run, save_model
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
    """Returns the message of `load_run` for a run folder in which one file has other content."""

    def message(name: str, content: bytes) -> str:
        for file in ("model.json", "model.safetensors"):
            (tmp_path / file).write_bytes(content if file == name else (run / file).read_bytes())
        with pytest.raises(FastpetsError) as raised:
            load_run(tmp_path, "cpu")
        text = str(raised.value)
        assert text.startswith(f"{tmp_path / name}: ")
        assert "\n" not in text
        return text

    return message


def test_a_loaded_model_is_pretrained_so_that_it_can_be_fine_tuned(run: Path) -> None:
    saved = load_run(run, "cpu")
    assert (saved.model.mean, saved.model.std) == (PREPROCESSING.mean, PREPROCESSING.std)
    TrainStep(saved.model, TrainingOptions(), saved.device).freeze_to(-1)
    assert not saved.model.backbone.features[0].weight.requires_grad


def test_a_loaded_model_can_be_pickled_and_copied(run: Path) -> None:
    saved = load_run(run, "cpu")
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
        load_run(tmp_path / "folder", "cpu")


def test_labels_of_a_loader_are_those_of_the_models_classes(run: Path, tmp_path: Path) -> None:
    saved = load_run(run, "cpu")
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
