"""`fastpets serve`: requests to a running server, and its page in a headless browser."""

import contextlib
import html
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil
import pytest
from PIL import Image
from PIL.ExifTags import Base

from fastpets import serve
from fastpets.cli import main
from fastpets.runs.predictor import load
from tests.browser import complaints
from tests.images import encode

MAX_BYTES, MAX_PIXELS = 300_000, 40_000_000


class Server:
    """A running `fastpets serve`."""

    def __init__(self, run: Path, port: int, environment: dict[str, str]) -> None:
        limits = ["--max-megabytes", str(MAX_BYTES / 1e6), "--max-pixels", str(MAX_PIXELS)]
        command = [sys.executable, "-m", "fastpets", "serve", str(run), "--port", str(port), "--device", "cpu", *limits]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ | environment
        )
        address = self.process.stdout.readline()
        self.port = int(address.split()[0].rpartition(":")[2]) if address else port

    def ask(self, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
        """The status and the content of an answer."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers)
            response = connection.getresponse()
            content = response.read()
        is_json = response.getheader("Content-Type") == "application/json"
        return response.status, json.loads(content) if is_json else content.decode()

    def send(self, request: bytes) -> bytes:
        """The answer to the bytes of a request, until the server closes the connection."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=60) as connection:
            connection.sendall(request)
            return b"".join(iter(lambda: connection.recv(2**16), b""))

    def stop(self) -> tuple[int, str]:
        """Its exit status after Ctrl-C, and what it printed on standard error."""
        self.process.send_signal(signal.SIGINT)
        _, errors = self.process.communicate(timeout=60)
        return self.process.returncode, errors


@pytest.fixture(scope="module")
def start(trained_run: Path) -> Iterator[Callable[..., Server]]:
    """Starts a server, which has to end without a message."""
    with contextlib.ExitStack() as stack:

        def start_server(port: int = 0, run: Path = trained_run, **environment: str) -> Server:
            server = Server(run, port, environment)
            stack.callback(server.process.kill)
            return server

        yield start_server


@pytest.fixture(scope="module")
def server(start: Callable[..., Server]) -> Iterator[Server]:
    server = start()
    yield server
    assert server.stop() == (0, "")


def test_an_image_is_answered_with_its_probabilities(server: Server, trained_run: Path, drawn_classes: Path) -> None:
    image = drawn_classes / "beagle_0.jpg"
    run = load(trained_run, "cpu")
    expected = run.probabilities(next(iter(run.loader([image]))).images)[0]
    for _ in range(2):
        status, answer = server.ask("POST", "/predict", image.read_bytes())
        assert status == 200
        found = {each["class"]: each["probability"] for each in answer["classes"]}
        assert found == pytest.approx(dict(zip(run.classes, expected.tolist(), strict=True)))


def test_100_requests_at_once_are_all_answered(server: Server, drawn_classes: Path) -> None:
    content = (drawn_classes / "beagle_0.jpg").read_bytes()
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(lambda _: server.ask("POST", "/predict", content), range(100)))
    assert [status for status, _ in answers] == [200] * 100
    assert all(answer == answers[0][1] for _, answer in answers)


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"no image", {}, 415, "expected an image"),
        (b"", {}, 415, "0 bytes"),
        (b"x" * (MAX_BYTES + 1), {}, 413, "larger than 0.3 MB"),
        (b"x" * 30_000_000, {}, 413, "larger than 0.3 MB"),
        (b"x", {"Origin": "http://elsewhere.example"}, 403, "requests from other sites are refused"),
        (b"x", {"Origin": "https://127.0.0.1"}, 403, "requests from other sites are refused"),
        (b"x", {"Origin": "null"}, 403, "requests from other sites are refused"),
    ],
)
def test_other_files_large_files_and_requests_of_other_sites_are_rejected(
    server: Server, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    found, answer = server.ask("POST", "/predict", body, **headers)
    assert found == status
    assert message in answer["error"]


def test_another_name_for_this_address_is_refused(server: Server) -> None:
    """A page of another site whose name resolves to 127.0.0.1 (DNS rebinding)."""
    for path, method in (("/", "GET"), ("/predict", "POST")):
        status, answer = server.ask(method, path, Host="elsewhere.example", Origin="http://elsewhere.example")
        assert (status, answer) == (400, "Invalid host header")


@pytest.mark.parametrize(
    ("host", "origin"),
    [
        ("127.0.0.1", "http://127.0.0.1"),
        ("127.0.0.1:80", "http://127.0.0.1"),
        ("127.0.0.1", "http://127.0.0.1:80"),
        ("localhost:8000", "http://localhost:8000"),
        ("LOCALHOST", "http://localhost"),
    ],
)
def test_the_own_page_may_ask_on_any_port(server: Server, drawn_classes: Path, host: str, origin: str) -> None:
    content = (drawn_classes / "beagle_0.jpg").read_bytes()
    assert server.ask("POST", "/predict", content, Host=host, Origin=origin)[0] == 200


@pytest.mark.parametrize("length", ["9" * 5000, "-1", "x", "1e3", "10, 11"])
def test_a_malformed_length_is_a_bad_request(server: Server, length: str) -> None:
    request = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {length}\r\n\r\nx"
    assert server.send(request.encode()).startswith(b"HTTP/1.1 400 ")


def test_a_body_without_a_length_is_read_in_chunks(server: Server, drawn_classes: Path) -> None:
    content = (drawn_classes / "beagle_0.jpg").read_bytes()
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    answer = server.send(f"{head}{len(content):x}\r\n".encode() + content + b"\r\n0\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_request_that_breaks_off_leaves_no_message(server: Server) -> None:
    head = "POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n"
    for request in (head + "half", head[:30], ""):
        with socket.create_connection(("127.0.0.1", server.port)) as connection:
            connection.sendall(request.encode())
    assert server.ask("GET", "/")[0] == 200


def with_late_exif(png: bytes) -> bytes:
    """A PNG with an EXIF chunk after its pixels, which Pillow finds only by decoding these."""
    exif = Image.Exif()
    exif[Base.Orientation] = 6
    chunk = b"eXIf" + exif.tobytes()[6:]
    return png[:-12] + struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) + png[-12:]


def test_images_of_too_many_pixels_are_refused_before_they_are_decoded(server: Server, drawn_classes: Path) -> None:
    png = encode(Image.new("L", (14_000, 12_650)), "PNG")  # 177 megapixels
    assert server.ask("POST", "/predict", (drawn_classes / "beagle_0.jpg").read_bytes())[0] == 200
    process = psutil.Process(server.process.pid)
    before = peak_bytes(process)
    for content in (png, with_late_exif(png)):
        status, answer = server.ask("POST", "/predict", content)
        assert (status, answer) == (415, {"error": "14,000 x 12,650 px, expected at most 40,000,000; see --max-pixels"})
    assert peak_bytes(process) - before < 50e6  # the pixels alone are 177 MB


def peak_bytes(process: psutil.Process) -> int:
    """The most memory that a process had so far."""
    status = Path(f"/proc/{process.pid}/status").read_text()
    return 1024 * next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM"))


def test_the_page_names_the_run_and_its_classes(server: Server, trained_run: Path) -> None:
    status, page = server.ask("GET", "/")
    assert status == 200
    assert f"<title>{trained_run.name}: fastpets</title>" in page
    names = ", ".join(html.escape(name, quote=False) for name in load(trained_run, "cpu").classes)
    assert f"Classifies images into 3 classes</summary>{names}</details>" in page


def test_there_is_one_page_and_only_for_this_machine(server: Server) -> None:
    assert server.ask("GET", "/../train.py")[0] == 404
    assert server.ask("POST", "/", b"x")[0] == 405
    assert server.ask("GET", "/predict")[0] == 405
    addresses = {each.laddr.ip for each in psutil.Process(server.process.pid).net_connections() if not each.raddr}
    assert addresses == {"127.0.0.1"}


def test_a_port_in_use_is_an_error(trained_run: Path, capsys: pytest.CaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(trained_run), "--port", str(port), "--device", "cpu"]) == 1
    assert f"--port: {port}: Address already in use, expected a free one; --port 0 picks one" in capsys.readouterr().err


def choose(browser: Any, port: int, file: Path) -> tuple[Any, list[Any]]:
    """Opens the page and chooses a file; returns the page's status and the rows of classes."""
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"http://127.0.0.1:{port}/")
    browser.find_element(By.ID, "file").send_keys(str(file))
    rows = WebDriverWait(browser, 30).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "#classes tr"))
    return browser.find_element(By.ID, "status"), rows


def test_the_page_shows_the_classes_of_an_image(
    browser: Any, server: Server, drawn_classes: Path, tmp_path: Path
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    status, rows = choose(browser, server.port, drawn_classes / "beagle_0.jpg")
    assert len(rows) == 3
    assert status.text == rows[0].text.split(" ")[0] or rows[0].text.startswith(status.text)
    assert complaints(browser) == []
    noise = Image.frombytes("L", (700, 700), os.urandom(490_000))
    for name, content, message in (
        ("no.jpg", b"no image", "expected an image"),
        ("large.png", encode(noise, "PNG"), "larger than 0.3 MB"),
    ):
        (tmp_path / name).write_bytes(content)
        browser.find_element(By.ID, "file").send_keys(str(tmp_path / name))
        WebDriverWait(browser, 30).until(lambda driver, message=message: message in status.text)


@pytest.mark.slow
def test_the_page_works_on_port_80(browser: Any, start: Callable[..., Server], drawn_classes: Path) -> None:
    try:
        socket.create_server(("127.0.0.1", 80)).close()
    except OSError as error:
        pytest.skip(f"needs port 80: {error.strerror}")
    server = start(80)
    _, rows = choose(browser, 80, drawn_classes / "beagle_0.jpg")
    assert len(rows) == 3
    assert server.stop() == (0, "")


def test_a_request_writes_nothing_to_the_cache_of_headers(server: Server, drawn_classes: Path, cache: Path) -> None:
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    assert server.ask("POST", "/predict", (drawn_classes / "beagle_0.jpg").read_bytes())[0] == 200
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == before


def test_classes_that_are_not_utf8_are_escaped(trained_run: Path, drawn_classes: Path) -> None:
    saved = replace(load(trained_run, "cpu"), classes=("caf\udce9", "two\nlines", "\u65e5\u672c"))
    classes = serve.classify(saved, (drawn_classes / "beagle_0.jpg").read_bytes(), MAX_PIXELS)
    answer = json.dumps(classes, ensure_ascii=False).encode()  # as Starlette does
    assert {each["class"] for each in json.loads(answer)} == {r"caf\udce9", r"two\nlines", "\u65e5\u672c"}
