"""`python -m fastpets.serve`: a page on this machine to drop an image on, and read what a model takes it for."""

from __future__ import annotations

import json
import sys
import threading
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import TYPE_CHECKING, Any

import fsspec
import tyro
from tyro.conf import Positional

from fastpets.errors import BadFileError, FastpetsError
from fastpets.utils.validation import check_range

if TYPE_CHECKING:
    from fastpets.runs.saved_model import SavedModel

HOST = "127.0.0.1"  # nobody else's
TOP = 5
PAGE = Path(__file__).with_name("serve.html")


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Serve a page on this machine alone, on which an image can be dropped to read its class."""

    run: Positional[Path]
    """The run's folder."""
    port: int = 8000
    """Where; 0 for any that is free."""
    max_megabytes: float = 20.0
    """The largest file that is taken."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check_range("--port", self.port, 0, 65535)
        check_range("--max-megabytes", self.max_megabytes, 0.001, 1e4)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command line: serves until Ctrl-C, then 0; 1 if it cannot (one line says why)."""
    try:
        config = tyro.cli(ServeConfig, args=arguments, prog="python -m fastpets.serve")
        server = make_server(config)
    except FastpetsError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    print(f"http://{HOST}:{server.server_port} takes images; Ctrl-C ends it", flush=True)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print()
    finally:
        server.server_close()
    return 0


def make_server(config: ServeConfig) -> ThreadingHTTPServer:
    """The server, not serving yet. Raises FastpetsError if there is no model, or the port is taken."""
    from fastpets.runs.saved_model import load_run
    from fastpets.utils.device import resolve_device

    run = load_run(config.run, resolve_device(config.device))
    handler = type(
        "Handler", (Handler,), {"run": run, "most_bytes": int(config.max_megabytes * 1e6), "lock": threading.Lock()}
    )
    try:
        return ThreadingHTTPServer((HOST, config.port), handler)
    except OSError as error:
        raise FastpetsError(
            f"--port {config.port}: {error.strerror}; take another, or 0 for one that is free"
        ) from None


class Handler(BaseHTTPRequestHandler):
    """GET / is the page; POST /predict takes a file's bytes and answers with the most probable classes as JSON."""

    run: SavedModel
    most_bytes: int
    lock: threading.Lock
    timeout = 30  # seconds for a request that does not come whole

    def do_GET(self) -> None:
        if self.path != "/":
            self.answer(HTTPStatus.NOT_FOUND, {"error": "there is only the page itself"})
            return
        self.send(HTTPStatus.OK, "text/html; charset=utf-8", PAGE.read_bytes())

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        if self.path != "/predict":
            self.answer(HTTPStatus.NOT_FOUND, {"error": "images go to /predict"})
        elif not self.from_the_page():
            self.answer(HTTPStatus.FORBIDDEN, {"error": "only this page may ask"})
        elif not length.isdecimal():
            self.answer(HTTPStatus.LENGTH_REQUIRED, {"error": "Content-Length is missing"})
        elif int(length) > self.most_bytes:
            most = self.most_bytes / 1e6
            self.answer(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, {"error": f"larger than {most:g} MB; see --max-megabytes"})
        else:
            try:
                self.answer(HTTPStatus.OK, {"classes": self.predict(self.rfile.read(int(length)))})
            except (BadFileError, FastpetsError) as error:
                problems = getattr(error, "problems", {"": str(error)})
                self.answer(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, {"error": next(iter(problems.values()))})

    def from_the_page(self) -> bool:
        """Whether a request is not another site's, sent by a browser that also looks at this one."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        return host.rpartition(":")[0] in (HOST, "localhost") and origin in (None, f"http://{host}")

    def predict(self, content: bytes) -> list[dict[str, Any]]:
        """The most probable classes of an encoded image, which goes the way of all others."""
        name = f"memory://fastpets/{uuid.uuid4()}.jpg"
        fsspec.filesystem("memory").pipe(name, content)
        try:
            with self.lock:
                (batch,) = self.run.loader([name], batch_size=1, num_workers=1)
                values, labels = self.run.probabilities(batch.images)[0].topk(min(TOP, len(self.run.classes)))
        finally:
            fsspec.filesystem("memory").rm(name)
        names = [self.run.classes[label] for label in labels.tolist()]
        return [{"class": name, "probability": value} for name, value in zip(names, values.tolist(), strict=True)]

    def answer(self, status: HTTPStatus, content: dict[str, Any]) -> None:
        self.send(status, "application/json", json.dumps(content).encode())
        self.close_connection = status != HTTPStatus.OK  # what was sent may not have been read

    def send(self, status: HTTPStatus, kind: str, content: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Content-Security-Policy", "default-src 'none'; style-src 'unsafe-inline'; script-src "
                         "'unsafe-inline'; img-src data: blob:; connect-src 'self'")  # fmt: skip
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Says nothing for each request."""


if __name__ == "__main__":
    sys.exit(main())
