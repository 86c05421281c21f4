"""What the tests share: a cache folder of their own, real images and weights where there are any, drawn ones."""

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.images import drawing


@pytest.fixture(scope="session", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """An empty user's cache folder for the session, in this process and its children."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(folder))
        yield folder


@pytest.fixture(scope="session")
def pets() -> Path:
    """The folder of real images that FASTPETS_PETS names."""
    if not (folder := os.environ.get("FASTPETS_PETS")):
        pytest.skip("FASTPETS_PETS names no folder of real images")
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
    from fastpets.data.sample import sample_folder

    return sample_folder()


@pytest.fixture(scope="session")
def drawn_classes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 60 JPEGs of three classes with odd names."""
    folder = tmp_path_factory.mktemp("drawn")
    for number in range(60):
        name = ("beagle", "Maine Coon", "<b>pug</b> & co".replace("/", "-"))[number % 3]
        drawing(60 + 7 * (number % 9), 70 + 11 * (number % 5), seed=number % 3).save(folder / f"{name}_{number}.jpg")
    return folder


@pytest.fixture(scope="session")
def trained_run(drawn_classes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run folder of a small model that was trained on `drawn_classes`, as the command leaves it."""
    from fastpets import train

    run = tmp_path_factory.mktemp("runs") / "trained"
    flags = ["--arch", "resnet18", "--weights", "none", "--size", "32", "--batch-size", "8", "--device", "cpu"]
    flags += ["--schedule", "unfrozen 2 auto"]
    assert train.main(["--data", str(drawn_classes), *flags, "--out", str(run)]) == 0
    return run


@pytest.fixture(scope="session")
def browser() -> Iterator[Any]:
    """Selenium's driver of a real headless Chromium, as Debian packages it; skipped where it is not installed."""
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
    """Makes a folder of JPEGs named label_number.jpg, of various sizes."""

    def make(num_images: int = 20, num_classes: int = 2, name: str = "images") -> Path:
        folder = tmp_path / name
        folder.mkdir()
        for number in range(num_images):
            height, width = 40 + 7 * (number % 9), 50 + 11 * (number % 5)
            path = folder / f"kind{number % num_classes}_{number}.jpg"
            drawing(height, width, seed=number).save(path, quality=92)
        return folder

    return make
