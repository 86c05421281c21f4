"""A trained model in a folder: its weights, its classes and its preprocessing; it predicts the classes of images."""

from __future__ import annotations

import contextlib
import json
import os
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, overload

import numpy as np
import torch
from PIL import Image
from torch import nn

from fastpets.augment.preprocessing import Preprocessing
from fastpets.data import storage
from fastpets.data.image import encode
from fastpets.data.sources import as_dataset
from fastpets.errors import BadFileError, FastpetsError, InvalidArgumentError, reason
from fastpets.loading.device import resolve_device
from fastpets.loading.loader import Loader
from fastpets.models.classifier import Classifier, create_model
from fastpets.models.weights import load_weights, save_weights
from fastpets.training.host_copies import HostCopies
from fastpets.utils.atomic import write_atomically
from fastpets.utils.progress import track
from fastpets.utils.system import resolve_num_workers
from fastpets.utils.validation import MAX_TOP, HeadName, check_range

REMEDY = "leave them out, or give other images"
Classes = list[tuple[str, float]]  # names and probabilities, the most probable first


@dataclass(frozen=True, eq=False, repr=False)
class Predictor:
    """A trained model, ready to predict.

    Attributes:
        model: the model, float32, in evaluation mode.
        classes: names of the C classes.
        preprocessing: preprocessing of the validation images, which all images for this model need.
        device: device of the model.
    """

    model: Classifier
    classes: tuple[str, ...]
    preprocessing: Preprocessing
    device: torch.device

    def __repr__(self) -> str:
        size = "{1} x {0} px".format(*self.preprocessing.size)
        return f"Predictor({self.model.arch}, {len(self.classes)} classes, {size}, {self.device})"

    @overload
    def predict(
        self, images: list[Any] | tuple[Any, ...], top: int = 5, *, batch_size: int = 64, num_workers: int | None = None
    ) -> list[Classes]: ...

    @overload
    def predict(
        self, images: Any, top: int = 5, *, batch_size: int = 64, num_workers: int | None = None
    ) -> Classes: ...

    def predict(
        self, images: Any, top: int = 5, *, batch_size: int = 64, num_workers: int | None = None
    ) -> Classes | list[Classes]:
        """The `top` most probable classes of an image, as pairs of name and probability, the most probable first.

        Args:
            images: an image, or a list of images, which gives a list of results. An image is the path or the URL of a
                file; the bytes of one; an image of Pillow; or pixels from 0 to 255, as an array (H, W, 3) or (H, W)
                uint8 or a tensor (3, H, W) or (1, H, W) uint8.
            top: number of classes.
            batch_size: images per batch.
            num_workers: threads that read and decode, as for a Loader.

        Raises BadFileError, which names all images that cannot be used, and InvalidArgumentError.
        """
        check_range("top", top, 1, MAX_TOP)
        is_list = isinstance(images, list | tuple)
        if is_list and not images:
            return []
        with _as_paths(images if is_list else [images]) as (paths, names):
            found, problems = self.probabilities_of(paths, batch_size=batch_size, num_workers=num_workers)
            if problems:
                name_of = dict(zip(paths, names, strict=True))
                raise BadFileError({name_of[path]: problem for path, problem in problems.items()}, REMEDY)
            results = [self.most_probable(found[path], top) for path in paths]
        return results if is_list else results[0]

    def most_probable(self, probabilities: torch.Tensor, top: int) -> Classes:
        """Names and probabilities of the `top` most probable classes, given those (C,) of all."""
        values, labels = probabilities.topk(min(top, len(self.classes)))
        return [(self.classes[label], value) for label, value in zip(labels.tolist(), values.tolist(), strict=True)]

    def probabilities_of(
        self, paths: Sequence[str], *, batch_size: int = 64, num_workers: int | None = None
    ) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
        """Probabilities (C,) by path, and what is wrong with each image that cannot be used, by path."""
        dataset = as_dataset(paths, label_from="none").scanned(resolve_num_workers(num_workers))
        usable, problems = dataset.usable(self.preprocessing.max_pixels)
        found: dict[str, torch.Tensor] = {}
        if len(usable):
            loader = self.loader(usable, batch_size=batch_size, num_workers=num_workers, on_bad_file="skip")
            names: list[str] = []
            probabilities = HostCopies(torch.empty(0, len(self.classes)))
            for batch in track(loader, "predicting", len(loader)):
                names += [usable.paths[i] for i in batch.ids.tolist()]
                probabilities.append(self.probabilities(batch.images))
            found |= zip(names, probabilities.joined(), strict=True)
            problems |= loader.bad_files
        return found, problems

    def loader(self, source: Any, **arguments: Any) -> Loader:
        """A Loader of `source` with this model's preprocessing and device.

        It does not label the images of a folder. Labels are those of the same names in `classes`. `arguments` are
        further arguments of the Loader, or other values of these. Raises FastpetsError for images of other classes.
        """
        settings = {"label_from": "none", "device": self.device, **self.preprocessing.to_dict(), **arguments}
        return Loader(source, **settings).with_classes(self.classes)

    @torch.inference_mode()
    def probabilities(self, images: torch.Tensor) -> torch.Tensor:
        """Probabilities (B, C) float32 of a batch from `loader`."""
        return self.model(images).float().softmax(1)


@contextlib.contextmanager
def _as_paths(images: Sequence[Any]) -> Iterator[tuple[list[str], list[str]]]:
    """Paths of images, and their names for messages. Images that are no files are kept in fsspec's memory meanwhile."""
    import fsspec

    memory, folder = fsspec.filesystem("memory"), f"memory://fastpets/{uuid.uuid4()}"
    paths, names = list[str](), list[str]()
    try:
        for number, each in enumerate(images):
            if isinstance(each, str | os.PathLike):
                paths.append(storage.expanded(os.fspath(each)))
                names.append(paths[-1])
            else:
                paths.append(f"{folder}/{number}")
                names.append(f"images[{number}]" if len(images) > 1 else "images")
                memory.pipe(paths[-1], _encoded(each, names[-1]))
        yield paths, names
    finally:
        if memory.exists(folder):
            memory.rm(folder, recursive=True)


def _encoded(image: Any, name: str) -> bytes:
    """An image that is no file as the bytes of one. Raises InvalidArgumentError about the parameter `name`."""
    if isinstance(image, bytes | bytearray | memoryview):
        return bytes(image)
    if isinstance(image, Image.Image):
        try:
            return encode(image)
        except Exception as error:  # Pillow may raise any on damaged bytes
            raise BadFileError({name: f"not decoded by Pillow ({type(error).__name__}: {error})"}, REMEDY) from None
    found = type(image).__name__
    if isinstance(image, torch.Tensor):
        found = f"a tensor {tuple(image.shape)} {str(image.dtype).removeprefix('torch.')}"
        if image.ndim == 3 and image.shape[0] in (1, 3) and image.dtype == torch.uint8:
            pixels = image.movedim(0, -1).cpu().numpy()
            return encode(Image.fromarray(pixels if len(image) == 3 else pixels[..., 0]))
    if isinstance(image, np.ndarray):
        found = f"an array {image.shape} {image.dtype}"
        if (image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 3)) and image.dtype == np.uint8:
            return encode(Image.fromarray(image))
    raise InvalidArgumentError(
        f"{name}: {found}, expected a path, bytes, an image of Pillow, an array (H, W, 3) or (H, W) uint8, or a tensor "
        "(3, H, W) or (1, H, W) uint8"
    )


def save_model(
    folder: Path, model: nn.Module, *, arch: str, classes: tuple[str, ...], preprocessing: Preprocessing
) -> None:
    """Writes model.safetensors and model.json, from which `load` builds the model again."""
    save_weights(model, folder / "model.safetensors")
    preprocessing = replace(preprocessing, dtype="float32")  # it predicts without autocast
    description = {"arch": arch, "head": getattr(model, "head_name", "fastai"), "classes": list(classes)}
    description |= {"preprocessing": preprocessing.to_dict()}
    text = json.dumps(description, indent=2) + "\n"
    write_atomically(folder / "model.json", lambda staging: staging.write_text(text, encoding="utf-8"))


def load(folder: str | Path, device: str | torch.device = "auto") -> Predictor:
    """Loads the trained model of a run folder, or of a learner's `export`. Raises FastpetsError if there is none."""
    file = Path(folder) / "model.json"
    resolved_device = resolve_device(device)
    arch, head, classes, preprocessing = _read_description(file)
    try:
        model = create_model(arch, len(classes), "none", classes=classes, head=head)
    except InvalidArgumentError as error:  # an unknown architecture or head
        raise FastpetsError(f"{file}: {error}") from None
    load_weights(model, file.with_name("model.safetensors"))
    model.pretrained, model.mean, model.std = True, preprocessing.mean, preprocessing.std
    model = model.to(resolved_device).to(memory_format=torch.channels_last).eval()
    return Predictor(model, classes, preprocessing, resolved_device)


def _read_description(file: Path) -> tuple[str, HeadName, tuple[str, ...], Preprocessing]:
    """The architecture, the head, the classes and the preprocessing in a model.json. Raises FastpetsError."""
    try:
        description = json.loads(file.read_text(encoding="utf-8"))
        arch, classes = description["arch"], description["classes"]
        preprocessing = Preprocessing.from_dict(description["preprocessing"])
        if not isinstance(arch, str):
            raise ValueError(f"arch is {arch!r}, not a name")
        is_list = isinstance(classes, list) and all(isinstance(name, str) for name in classes)
        if not is_list or not classes or len(set(classes)) < len(classes):
            raise ValueError("classes is not a list of different names")
        return arch, description.get("head", "fastai"), tuple(classes), preprocessing
    except KeyError as error:
        found: object = f"{error} is missing"
    except (OSError, ValueError, TypeError, OverflowError, RecursionError, FastpetsError) as error:
        found = reason(error)
    raise FastpetsError(f"{file}: {found}, expected the description of a trained model")
