"""Without a network, a download is one line within seconds."""

import http.server
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from fastpets.data import network

CLOSED = "http://127.0.0.1:9"


class Refusing(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[str]:
    with http.server.HTTPServer(("127.0.0.1", 0), Refusing) as running:
        threading.Thread(target=running.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{running.server_port}/missing"
        running.shutdown()


def test_any_answer_is_a_connection(server: str) -> None:
    network.check_connection(server)


def test_a_closed_port_and_an_unknown_name_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("http_proxy", raising=False)
    with pytest.raises(ConnectionRefusedError):
        network.check_connection(CLOSED)
    with pytest.raises(OSError, match=r"not known|failure|resol"):
        network.check_connection("http://nowhere.invalid/")


def test_a_server_that_never_answers_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "TIMEOUT_S", 0.2)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(OSError, match="time"):
        network.check_connection(f"http://127.0.0.1:{silent.getsockname()[1]}/")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (
            "sample --arch resnet18",
            "error: --weights: https://download.pytorch.org/models/resnet18-f37072fd.pth cannot",
        ),
        (
            "sample --arch timm/resnet10t",
            "error: --weights: timm cannot load its weights of resnet10t (ConnectionRefused",
        ),
        ("", "error: https://www.robots.ox.ac.uk/~vgg/data/pets/data/images.tar.gz: cannot be downloaded ("),
    ],
)
def test_a_run_without_a_network_ends_in_one_line(flags: str, message: str, tmp_path: Path) -> None:
    proxies = dict.fromkeys(("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"), CLOSED)
    places = {"HF_HOME": str(tmp_path), "TORCH_HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path)}
    command = [sys.executable, "-m", "fastpets", "train", *flags.split(), "--out", str(tmp_path / "run")]
    environment = os.environ | proxies | places | {"no_proxy": ""}
    child = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert child.stderr.startswith(message)
    assert child.stderr.count("\n") == 1  # the hub's client prints a line for each request that it repeats
    assert child.returncode == 1


def test_weights_in_the_hubs_cache_need_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import huggingface_hub
    import timm
    from safetensors.torch import save_file

    from fastpets.models.classifier import create_model

    network_state = timm.create_model("resnet10t", pretrained=False).state_dict()
    file = tmp_path / "model.safetensors"
    save_file({name: value.contiguous() for name, value in network_state.items()}, file)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: str(file))
    model = create_model("timm/resnet10t", 3, "default")
    assert model.pretrained
    own = model.backbone.network.state_dict()
    assert all(own[name].equal(value) for name, value in network_state.items() if name in own)
