"""`fastpets serve`: requests to a running server, and its page in a headless browser."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from fastpets import serve
from fastpets.cli import main
from fastpets.runs.saved_model import load_run
from tests.browser import complaints


@pytest.fixture
def server(trained_run: Path) -> Iterator[ThreadingHTTPServer]:
    config = serve.ServeConfig(run=trained_run, port=0, max_megabytes=0.1, device="cpu")
    with serve.make_server(config) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield running
        running.shutdown()
        thread.join()


def ask(server: ThreadingHTTPServer, method: str, path: str, body: bytes = b"", **headers: str) -> tuple[int, Any]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=30)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    content = response.read()
    connection.close()
    is_json = response.getheader("Content-Type") == "application/json"
    return response.status, json.loads(content) if is_json else content.decode()


def test_an_image_is_answered_with_its_probabilities(
    server: ThreadingHTTPServer, trained_run: Path, drawn_classes: Path
) -> None:
    image = drawn_classes / "beagle_0.jpg"
    run = load_run(trained_run, "cpu")
    expected = run.probabilities(next(iter(run.loader([image]))).images)[0]
    for _ in range(2):
        status, answer = ask(server, "POST", "/predict", image.read_bytes())
        assert status == 200
        found = {each["class"]: each["probability"] for each in answer["classes"]}
        assert found == pytest.approx(dict(zip(run.classes, expected.tolist(), strict=True)))


@pytest.mark.parametrize(
    ("body", "headers", "status", "message"),
    [
        (b"no image", {}, 415, "expected an image"),
        (b"", {}, 415, "0 bytes"),
        (b"x" * 100_001, {}, 413, "larger than 0.1 MB"),
        (b"x", {"Origin": "http://elsewhere.example"}, 403, "requests from other sites are refused"),
        (
            b"x",
            {"Host": "elsewhere.example:80", "Origin": "http://elsewhere.example:80"},
            403,
            "requests from other sites are refused",
        ),
    ],
)
def test_other_files_large_files_and_requests_of_other_sites_are_rejected(
    server: ThreadingHTTPServer, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    found, answer = ask(server, "POST", "/predict", body, **headers)
    assert found == status
    assert message in answer["error"]
    assert ask(server, "GET", "/")[0] == 200  # the server still runs


def test_there_is_one_page_and_only_for_this_machine(server: ThreadingHTTPServer) -> None:
    assert ask(server, "GET", "/../train.py")[0] == 404
    assert ask(server, "POST", "/", b"x")[0] == 404
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_in_use_is_an_error(trained_run: Path, capsys: pytest.CaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(trained_run), "--port", str(port), "--device", "cpu"]) == 1
    assert f"--port: {port}: Address already in use, expected a free one; --port 0 picks one" in capsys.readouterr().err


def test_the_page_shows_the_classes_of_an_image(
    browser: Any,
    server: ThreadingHTTPServer,
    drawn_classes: Path,
    tmp_path: Path,
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"http://127.0.0.1:{server.server_port}/")
    chooser, status = browser.find_element(By.ID, "file"), browser.find_element(By.ID, "status")
    chooser.send_keys(str(drawn_classes / "beagle_0.jpg"))
    rows = WebDriverWait(browser, 30).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "#classes tr"))
    assert len(rows) == 3
    assert status.text == rows[0].text.split(" ")[0] or rows[0].text.startswith(status.text)
    assert complaints(browser) == []
    (tmp_path / "no.jpg").write_text("no image")
    chooser.send_keys(str(tmp_path / "no.jpg"))
    WebDriverWait(browser, 30).until(lambda driver: "expected an image" in status.text)


def test_a_request_writes_nothing_to_the_cache_of_headers(
    server: ThreadingHTTPServer, drawn_classes: Path, cache: Path
) -> None:
    before = {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()}
    assert ask(server, "POST", "/predict", (drawn_classes / "beagle_0.jpg").read_bytes())[0] == 200
    assert {path: path.read_bytes() for path in cache.rglob("*") if path.is_file()} == before


def test_the_server_closes_a_connection_after_its_answer(server: ThreadingHTTPServer, drawn_classes: Path) -> None:
    content = (drawn_classes / "beagle_0.jpg").read_bytes()
    head = f"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(content)}\r\n\r\n"  # no port: 80
    with socket.create_connection(("127.0.0.1", server.server_port), timeout=20) as connection:
        connection.sendall(head.encode() + content)
        answer = b""
        while part := connection.recv(2**16):  # times out if a thread waits for another request
            answer += part
    assert answer.startswith(b"HTTP/1.0 200 OK\r\n")
