"""The download: once, verified, whole or not at all, and one line for those without a network."""

import hashlib
import io
import tarfile
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from fastpets import train
from fastpets.data.pets import URL, pets_folder
from fastpets.errors import FastpetsError
from tests.images import drawing, encode


def archive() -> bytes:
    """A small archive of the published one's form, with files that want to go elsewhere."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name in (
            *("images/Birman_1.jpg", "images/beagle_2.jpg", "images/Birman_1.mat"),
            *("../evil.jpg", "images/../evil.jpg", "/tmp/evil.jpg", "evil.jpg"),
        ):
            content = encode(drawing(20, 30), "JPEG")
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return file.getvalue()


class Server(ThreadingHTTPServer):
    """Serves `content` at any address, claiming a length, and counts the requests."""

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


def test_the_images_are_downloaded_once_and_unpacked(server: Server, own_cache: Path) -> None:
    for _ in range(2):
        folder = pets_folder(address(server), md5(server.content))
        assert sorted(path.name for path in folder.iterdir()) == [
            "Birman_1.jpg",
            "Birman_1.mat",
            "beagle_2.jpg",
        ]
    assert server.requests == 1
    assert sorted(path.name for path in own_cache.iterdir()) == ["images", "images.tar.gz"]


def test_what_is_not_the_published_archive_is_refused_and_not_kept(server: Server, own_cache: Path) -> None:
    with pytest.raises(FastpetsError, match=r"what came has the MD5 \w+, expected 0000.*--data DIR"):
        pets_folder(address(server), "0000")
    assert list(own_cache.iterdir()) == []


def test_a_download_that_breaks_off_leaves_nothing_and_the_next_one_starts_anew(
    server: Server, own_cache: Path
) -> None:
    whole, server.content = server.content, server.content[:100]
    with pytest.raises(FastpetsError):
        pets_folder(address(server), md5(whole))
    assert list(own_cache.iterdir()) == []
    server.content = whole
    assert pets_folder(address(server), md5(whole)).is_dir()


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


def test_without_a_network_one_line_names_the_address_the_place_and_the_flag(
    own_cache: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:9")  # a port where nobody answers
    assert train.main(["--arch", "resnet18", "--weights", "none"]) == 1
    complaint = capsys.readouterr().err
    assert complaint.count("\n") == 1
    for part in (URL, "cannot be downloaded", str(own_cache / "images.tar.gz"), "--data DIR"):
        assert part in complaint
