"""The page that takes an image: real requests to a real server, and a real browser on it."""

import http.client
import json
import socket
import threading
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
import torch

from fastpets import serve
from fastpets.__main__ import main
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


def test_a_image_is_answered_with_the_models_classes(
    server: ThreadingHTTPServer, trained_run: Path, drawn_classes: Path
) -> None:
    image = drawn_classes / "beagle_0.jpg"
    run = load_run(trained_run, torch.device("cpu"))
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
        (b"x", {"Origin": "http://elsewhere.example"}, 403, "only this page may ask"),
        (
            b"x",
            {"Host": "elsewhere.example:80", "Origin": "http://elsewhere.example:80"},
            403,
            "only this page may ask",
        ),
    ],
)
def test_what_is_no_image_or_too_large_or_not_from_the_page_is_refused(
    server: ThreadingHTTPServer, body: bytes, headers: dict[str, str], status: int, message: str
) -> None:
    found, answer = ask(server, "POST", "/predict", body, **headers)
    assert found == status
    assert message in answer["error"]
    assert ask(server, "GET", "/")[0] == 200  # it goes on


def test_other_addresses_are_not_there_and_nobody_else_is_served(server: ThreadingHTTPServer) -> None:
    assert ask(server, "GET", "/../train.py")[0] == 404
    assert ask(server, "POST", "/", b"x")[0] == 404
    assert server.server_address[0] == "127.0.0.1"


def test_a_port_that_is_taken_is_said(trained_run: Path, capsys: pytest.CaptureFixture) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert main(["serve", str(trained_run), "--port", str(port), "--device", "cpu"]) == 1
    assert f"--port {port}: Address already in use; take another" in capsys.readouterr().err


def test_a_browser_shows_what_the_model_takes_a_image_for(
    browser: Any,
    server: ThreadingHTTPServer,
    drawn_classes: Path,
    tmp_path: Path,
) -> None:
    from selenium.webdriver.common.by import By
    from selenium.webdriver.support.ui import WebDriverWait

    browser.get(f"http://127.0.0.1:{server.server_port}/")
    chooser, said = browser.find_element(By.ID, "file"), browser.find_element(By.ID, "said")
    chooser.send_keys(str(drawn_classes / "beagle_0.jpg"))
    rows = WebDriverWait(browser, 30).until(lambda driver: driver.find_elements(By.CSS_SELECTOR, "#found tr"))
    assert len(rows) == 3
    assert said.text == rows[0].text.split(" ")[0] or rows[0].text.startswith(said.text)
    assert complaints(browser) == []
    (tmp_path / "no.jpg").write_text("no image")
    chooser.send_keys(str(tmp_path / "no.jpg"))
    WebDriverWait(browser, 30).until(lambda driver: "expected an image" in said.text)
