"""Folders of empty files, and what a data set says of its images."""

from pathlib import Path

from fastpets.data.dataset import ImageDataset


def touch(folder: Path, *names: str) -> Path:
    """Makes empty files below a folder, and returns it."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return folder


def labelled(dataset: ImageDataset) -> dict[str, str]:
    """The class of each image by its file name."""
    return {Path(path).name: dataset.classes[label] for path, label in zip(dataset.paths, dataset.labels, strict=True)}
