"""Fixtures of all tests: an empty cache folder, real images and weights if available, drawn images, a trained run."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.images import drawing

NUM_THREADS = torch.get_num_threads()


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty cache folder of the user, for this process and its children."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(autouse=True)
def seed() -> None:
    """Seeds torch's generator, so that random weights do not depend on the tests before."""
    torch.manual_seed(0)


@pytest.fixture(autouse=True)
def threads() -> None:
    """Sets torch's number of threads, which commands that train set for the whole process, to its first value."""
    torch.set_num_threads(NUM_THREADS)


@pytest.fixture(scope="session")
def pets() -> Path:
    """The folder of real images, from FASTPETS_PETS."""
    if not (folder := os.environ.get("FASTPETS_PETS")):
        pytest.skip("needs FASTPETS_PETS, a folder of real images")
    return Path(folder)


@pytest.fixture(scope="session")
def weights() -> Path:
    """The file of real weights, from FASTPETS_WEIGHTS."""
    if not (file := os.environ.get("FASTPETS_WEIGHTS")):
        pytest.skip("needs FASTPETS_WEIGHTS, a file of real weights")
    return Path(file)


@pytest.fixture(scope="session")
def sample(cache: Path) -> Path:
    """The folder of the drawn sample data set."""
    from fastpets.data.sample import sample_folder

    return sample_folder()


@pytest.fixture(scope="session")
def drawn_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 JPEGs in three classes whose names contain spaces and HTML."""
    folder = tmp_path_factory.mktemp("drawn")
    for number in range(60):
        name = ("beagle", "Maine Coon", "<b>pug</b> & co".replace("/", "-"))[number % 3]
        drawing(60 + 7 * (number % 9), 70 + 11 * (number % 5), seed=number % 3).save(folder / f"{name}_{number}.jpg")
    return folder


@pytest.fixture(scope="session")
def trained_run(drawn_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small model trained on `drawn_classes` by the train command, without its checkpoints.

    All tests share it, so that none may change it; copies are small.
    """
    from fastpets.cli import main
    from fastpets.training.checkpoints import list_checkpoints

    run = tmp_path_factory.mktemp("runs") / "trained"
    flags = ["--arch", "shufflenet_v2_x0_5", "--weights", "none", "--size", "32", "--batch-size", "8"]
    flags += ["--device", "cpu", "--schedule", "unfrozen 2 auto"]
    assert main(["train", "--data", str(drawn_classes), *flags, "--out", str(run)]) == 0
    for checkpoint in list_checkpoints(run):
        checkpoint.unlink()
    return run


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Selenium's driver of a headless Chromium from Debian; skips the test if it is not installed."""
    if not (shutil.which("chromium") and shutil.which("chromedriver")):
        pytest.skip("needs Chromium: apt-get install chromium chromium-driver")
    from selenium import webdriver

    options = webdriver.ChromeOptions()
    for argument in ("--headless=new", "--no-sandbox", "--window-size=1000,1400"):
        options.add_argument(argument)
    options.binary_location = shutil.which("chromium")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, webdriver.ChromeService(shutil.which("chromedriver")))
    yield driver
    driver.quit()


@pytest.fixture
def make_folder(tmp_path: Path) -> Callable[..., Path]:
    """Returns a function that makes a folder of JPEGs of various sizes, named kindLABEL_NUMBER.jpg."""

    def make(num_images: int = 20, num_classes: int = 2, name: str = "images") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(num_images):
            height, width = 40 + 7 * (number % 9), 50 + 11 * (number % 5)
            path = folder / f"kind{number % num_classes}_{number}.jpg"
            drawing(height, width, seed=number).save(path, quality=92)
        return folder

    return make
