"""The pets are downloaded once, verified and placed atomically; without a network, one line says what to do."""

import hashlib
import io
import sys
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fastpets.cli import main
from fastpets.data.pets import URL, pets_folder
from fastpets.errors import FastpetsError
from tests.images import drawing, encode


def archive(*more: str) -> bytes:
    """A small archive laid out as the published one."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name in ("images/Birman_1.jpg", "images/beagle_2.jpg", "images/Birman_1.mat", *more):
            content = encode(drawing(20, 30), "JPEG")
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `content` at any URL, with `length` as its Content-Length, and counts the requests."""

    content: bytes
    length: int
    requests = 0


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        self.send_response(200)
        self.send_header("Content-Length", str(self.server.length))
        self.end_headers()
        self.wfile.write(self.server.content)

    def log_message(self, *arguments: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(("127.0.0.1", 0), Handler)
    server.content = archive()
    server.length = len(server.content)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "fastpets" / "oxford-iiit-pet"


def address(server: Server) -> str:
    return f"http://127.0.0.1:{server.server_port}/images.tar.gz"


def md5(content: bytes) -> str:
    return hashlib.md5(content, usedforsecurity=False).hexdigest()


def test_the_images_are_downloaded_once_and_unpacked(
    server: Server, own_cache: Path, capsys: pytest.CaptureFixture
) -> None:
    for call in range(2):
        if call == 1:
            server.requests = 0
        folder = pets_folder(address(server), md5(server.content))
        assert sorted(path.name for path in folder.iterdir()) == [
            "Birman_1.jpg",
            "Birman_1.mat",
            "beagle_2.jpg",
        ]
    assert server.requests == 0  # in the second call
    assert sorted(path.name for path in own_cache.iterdir()) == ["images", "images.tar.gz"]
    assert capsys.readouterr().err == ""  # no progress bar where there is no terminal


def test_another_archive_than_the_published_one_is_rejected_and_removed(server: Server, own_cache: Path) -> None:
    with pytest.raises(FastpetsError, match=r"not the published archive, whose MD5 is 0000; .*DIR"):
        pets_folder(address(server), "0000")
    assert list(own_cache.iterdir()) == []


def test_an_interrupted_download_leaves_nothing_and_the_next_one_succeeds(server: Server, own_cache: Path) -> None:
    whole, server.content = server.content, server.content[:100]
    with pytest.raises(FastpetsError):
        pets_folder(address(server), md5(whole))
    assert list(own_cache.iterdir()) == []
    server.content = whole
    assert pets_folder(address(server), md5(whole)).is_dir()


@pytest.mark.parametrize("name", ["../evil.jpg", "images/../../evil.jpg", "images/../../../evil.jpg"])
def test_an_archive_with_files_outside_of_its_folder_is_rejected(own_cache: Path, name: str) -> None:
    content = archive(name)
    own_cache.mkdir(parents=True)
    (own_cache / "images.tar.gz").write_bytes(content)
    with pytest.raises(FastpetsError, match=r"images.tar.gz: .*, expected the published archive"):
        pets_folder("http://127.0.0.1:9/", md5(content))
    assert [path.name for path in own_cache.iterdir()] == ["images.tar.gz"]


def test_an_archive_put_there_by_hand_needs_no_network(own_cache: Path) -> None:
    content = archive()
    own_cache.mkdir(parents=True)
    (own_cache / "images.tar.gz").write_bytes(content)
    assert len(list(pets_folder("http://127.0.0.1:9/", md5(content)).iterdir())) == 3
    other = own_cache / "images.tar.gz"
    other.write_bytes(content + b"more")
    (own_cache / "images").rename(own_cache / "gone")
    with pytest.raises(FastpetsError, match=r"images.tar.gz: its MD5 is \w+, expected"):
        pets_folder("http://127.0.0.1:9/", md5(content))


def test_images_that_are_there_are_found_without_importing_torchvision(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (own_cache / "images").mkdir(parents=True)
    monkeypatch.setitem(sys.modules, "torchvision.datasets.utils", None)
    assert pets_folder() == own_cache / "images"


def test_without_a_network_one_line_names_the_url_the_place_and_the_flag(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a closed port
    assert main(["train", "--arch", "resnet18", "--weights", "none"]) == 1
    message = capsys.readouterr().err
    assert message.count("\n") == 1
    for part in (URL, "cannot be downloaded", str(own_cache / "images.tar.gz"), "DIR"):
        assert part in message
