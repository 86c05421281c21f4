"""What the tests share: a cache folder of their own, real pictures and weights where there are any, drawn ones."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.pictures import drawing


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty user's cache folder for the session, in this process and its children."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def pets() -> Path:
    """The folder of real pictures that FASTPETS_PETS names."""
    if not (folder := os.environ.get("FASTPETS_PETS")):
        pytest.skip("FASTPETS_PETS names no folder of real pictures")
    return Path(folder)


@pytest.fixture(scope="session")
def weights() -> Path:
    """The file of real weights that FASTPETS_WEIGHTS names."""
    if not (file := os.environ.get("FASTPETS_WEIGHTS")):
        pytest.skip("FASTPETS_WEIGHTS names no file of real weights")
    return Path(file)


@pytest.fixture(scope="session")
def sample(cache: Path) -> Path:
    """The drawn data set."""
    from fastpets.sample import sample_folder

    return sample_folder()


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Makes a folder of JPEGs named label_number.jpg, of various sizes."""

    def make(num_pictures: int = 20, num_classes: int = 2, name: str = "pictures") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(num_pictures):
            height, width = 40 + 7 * (number % 9), 50 + 11 * (number % 5)
            path = folder / f"kind{number % num_classes}_{number}.jpg"
            drawing(height, width, seed=number).save(path, quality=92)
        return folder

    return make
