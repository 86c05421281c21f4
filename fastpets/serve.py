"""`fastpets serve`: serves a web page that classifies an image dropped on it, on this machine only."""

from __future__ import annotations

import json
import sys
import threading
import uuid
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
from tyro.conf import Positional

from fastpets.errors import FastpetsError, InvalidArgumentError
from fastpets.utils.validation import check_range

if TYPE_CHECKING:
    from fastpets.runs.saved_model import SavedModel

HOST = "127.0.0.1"  # not reachable from other machines
NUM_CLASSES_SHOWN = 5
PAGE = Path(__file__).with_name("serve.html")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Serve a web page that classifies an image dropped on it, on this machine only."""

    run: Positional[Path]
    """The run folder."""
    port: int = 8000
    """TCP port; 0 picks a free one."""
    max_megabytes: float = 20.0
    """Largest image file to accept, in megabytes."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check_range("port", self.port, 0, 65535)
        check_range("max_megabytes", self.max_megabytes, 0.001, 1e4)


def serve(config: ServeConfig) -> int:
    """Serves the page until Ctrl-C."""
    server = make_server(config)
    print(f"http://{HOST}:{server.server_port} classifies images; stop it with Ctrl-C", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    return 0


def make_server(config: ServeConfig) -> ThreadingHTTPServer:
    """Loads the model and opens the port. Raises FastpetsError if there is no model, or the port is taken."""
    from fastpets.runs.saved_model import load_run

    saved = load_run(config.run, config.device)
    max_bytes = int(config.max_megabytes * 1e6)
    handler = type("Handler", (Handler,), {"saved": saved, "max_bytes": max_bytes, "lock": threading.Lock()})
    try:
        return ThreadingHTTPServer((HOST, config.port), handler)
    except OSError as error:
        raise InvalidArgumentError(
            f"port: {config.port}: {error.strerror}, expected a free one; port=0 picks one"
        ) from None


class Handler(BaseHTTPRequestHandler):
    """Answers GET / with the page, and POST /predict, whose body is an image file, with its classes as JSON."""

    saved: SavedModel
    max_bytes: int
    lock: threading.Lock
    timeout = 30  # seconds to wait for the rest of a request

    def do_GET(self) -> None:
        if self.path != "/":
            self.answer(HTTPStatus.NOT_FOUND, {"error": "no such page"})
            return
        self.send(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.read_bytes())

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/predict":
            self.answer(HTTPStatus.NOT_FOUND, {"error": "no such address; send images to /predict"})
        elif not self.is_same_origin():
            self.answer(HTTPStatus.FORBIDDEN, {"error": "requests from other sites are refused"})
        elif not length.isdecimal():
            self.answer(HTTPStatus.LENGTH_REQUIRED, {"error": "Content-Length is missing"})
        elif int(length) > self.max_bytes:
            error = f"larger than {self.max_bytes / 1e6:g} MB; see --max-megabytes"
            self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": error})
        else:
            try:
                self.answer(HTTPStatus.OK, {"classes": self.predict(self.rfile.read(int(length)))})
            except FastpetsError as error:
                problems = getattr(error, "problems", {"": str(error)})
                self.answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": next(iter(problems.values()))})

    def is_same_origin(self) -> bool:
        """Whether the request was not sent by a page of another site: browsers name the sender's origin."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        return host.partition(":")[0] in (HOST, "localhost") and origin in (None, f"http://{host}")

    def predict(self, content: bytes) -> list[dict[str, Any]]:
        """The most probable classes of an encoded image. A Loader reads it as a file in fsspec's memory."""
        name = f"memory://fastpets/{uuid.uuid4()}.jpg"
        fsspec.filesystem("memory").pipe(name, content)
        try:
            with self.lock:
                (batch,) = self.saved.loader([name], batch_size=1, num_workers=1)
                values, labels = self.saved.probabilities(batch.images)[0].topk(
                    min(NUM_CLASSES_SHOWN, len(self.saved.classes))
                )
        finally:
            fsspec.filesystem("memory").rm(name)
        names = [self.saved.classes[label] for label in labels.tolist()]
        return [{"class": name, "probability": value} for name, value in zip(names, values.tolist(), strict=True)]

    def answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self.send(status, "application/json", json.dumps(content).encode())

    def send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src "
                         "'unsafe-inline'; img-src data: blob:; connect-src 'self'")  # fmt: skip
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Overrides the base class, which logs each request on standard error."""


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["serve", *sys.argv[1:]]))
