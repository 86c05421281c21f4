"""Without a cache folder that can be written, everything works as with an empty one, and says so once."""

import contextlib
import errno
import os
import resource
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from fastpets import FastpetsError, Loader
from fastpets.data.pets import pets_folder
from fastpets.data.sample import sample_folder
from fastpets.loading import memory_cache
from tests.epochs import pixels_by_id, same

WARNING = "image headers are read again at each start, since they cannot be cached: "
ANOTHER_FOLDER = "set XDG_CACHE_HOME to a folder that this process may write to"


@pytest.fixture(params=["a file", "below a file", "no home", "read-only"])
def spoil_cache(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Returns a function after which the cache folder cannot be made or written, also not by root."""

    def spoil() -> None:
        if request.param == "no home":
            monkeypatch.delenv("XDG_CACHE_HOME")
            monkeypatch.setenv("HOME", "")
            monkeypatch.setattr("pwd.getpwuid", lambda uid: (_ for _ in ()).throw(KeyError(uid)))
        elif request.param == "read-only":
            monkeypatch.setenv("XDG_CACHE_HOME", "/proc/self")  # nobody can write there
        else:
            (tmp_path / "file").write_text("")
            below = "" if request.param == "a file" else "below"
            monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file" / below))

    return spoil


@contextlib.contextmanager
def full_disk() -> Iterator[None]:
    """Writing to any file fails, also that of pytest for what is printed."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def load(folder: Path, **settings: object) -> Loader:
    return Loader(folder, 4, size=16, device="cpu", num_workers=1, **settings)


def test_a_loader_works_and_warns_once(make_folder: Callable[..., Path], spoil_cache: Callable[[], None]) -> None:
    folder = make_folder(4)
    expected = pixels_by_id(load(folder))
    (folder / "kind1_9.jpg").write_bytes((folder / "kind0_0.jpg").read_bytes())  # has to be cached
    spoil_cache()
    for _ in range(2):
        with pytest.warns(UserWarning, match=WARNING) as warned:
            loader = load(folder)
        assert len(warned) == 1
        assert str(warned[0].message).endswith(ANOTHER_FOLDER)
        assert warned[0].filename == __file__
        found = pixels_by_id(loader)
        assert same({i: found[i] for i in expected}, expected)


def test_a_full_disk_is_a_warning(make_folder: Callable[..., Path]) -> None:
    folder = make_folder(4)
    with pytest.warns(UserWarning, match=WARNING) as warned, full_disk():
        loader = load(folder)
    assert os.strerror(errno.EFBIG) in str(warned[0].message)
    assert len(pixels_by_id(loader)) == 4


def test_a_folder_that_can_only_be_read_is_read(
    make_folder: Callable[..., Path], cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(4)
    load(folder)
    monkeypatch.setattr("fastpets.data.headers.write_atomically", lambda *_: (_ for _ in ()).throw(OSError("no")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        load(folder)  # nothing to add


def test_auto_takes_no_cache_and_says_why_and_disk_is_an_error(
    make_folder: Callable[..., Path], spoil_cache: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = make_folder(4)
    load(folder)
    spoil_cache()
    monkeypatch.setattr(memory_cache, "free_memory", lambda: 0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loader = load(folder, cache="auto")
        assert loader.cache is None
        assert loader.cache_reason.startswith("none: 0.0 MB of images; host memory: room for only 0.0 MB; cache_dir: ")
        assert loader.cache_reason.endswith(", expected a folder to write to")
        assert len(pixels_by_id(loader)) == 4
        with pytest.raises(FastpetsError, match=r"cache_dir: .*, expected a folder to write to"):
            load(folder, cache="disk")


def test_data_that_is_kept_in_the_cache_folder_needs_one(spoil_cache: Callable[[], None]) -> None:
    spoil_cache()
    for make in (sample_folder, pets_folder):
        with pytest.raises(FastpetsError, match=ANOTHER_FOLDER):
            make()
