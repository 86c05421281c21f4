"""`fastpets serve`: serves a web page that classifies an image dropped on it, on this machine only."""

from __future__ import annotations

import asyncio
import contextlib
import io
import logging
import os
import socket
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from fastpets.augment.preprocessing import LIMITS
from fastpets.errors import BadFileError, InvalidArgumentError, one_line
from fastpets.runs.files import check_run
from fastpets.utils.validation import check_range

if TYPE_CHECKING:
    from starlette.applications import Starlette
    from starlette.requests import Request

    from fastpets.runs.predictor import Predictor

HOST = "127.0.0.1"  # not reachable from other machines
MAX_WAITING = 2048  # connections
NUM_CLASSES_SHOWN = 5
PAGE = Path(__file__).with_name("serve.html")
CONTENT_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data: blob:; connect-src 'self'"
)


@dataclass(frozen=True, kw_only=True)
class ServeConfig:
    """Serve a web page that classifies an image dropped on it, on this machine only."""

    run: Positional[Path]
    """The run folder."""
    port: int = 8000
    """TCP port; 0 picks a free one."""
    max_megabytes: Annotated[float, arg(metavar="MEGABYTES")] = 20.0
    """Largest image file to accept, in megabytes."""
    max_pixels: Annotated[int, arg(metavar="PIXELS")] = 50_000_000
    """Largest image to accept, in pixels. An image of as many takes half a gigabyte of memory."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""

    def __post_init__(self) -> None:
        check_range("port", self.port, 0, 65535)
        check_range("max_megabytes", self.max_megabytes, 0.001, 1e4)
        check_range("max_pixels", self.max_pixels, *LIMITS["max_pixels"])


def serve(config: ServeConfig) -> int:
    """Serves the page until Ctrl-C. Raises FastpetsError if there is no model, or the port is taken."""
    check_run("run", config.run)
    import uvicorn

    from fastpets.runs.build import limit_threads
    from fastpets.runs.predictor import load

    limit_threads(None)
    app = make_app(load(config.run, config.device), config)
    try:
        listener = socket.create_server((HOST, config.port), backlog=MAX_WAITING)
    except OSError as error:
        reason = os.strerror(error.errno or 0)
        raise InvalidArgumentError(f"port: {config.port}: {reason}, expected a free one; port=0 picks one") from None
    settings: dict[str, Any] = {"log_config": None, "log_level": logging.ERROR, "access_log": False}
    settings |= {"http": "h11", "ws": "none", "lifespan": "off", "backlog": MAX_WAITING, "timeout_graceful_shutdown": 5}
    with listener, contextlib.suppress(KeyboardInterrupt):
        print(f"http://{HOST}:{listener.getsockname()[1]} classifies images; stop it with Ctrl-C", flush=True)
        uvicorn.Server(uvicorn.Config(app, **settings)).run(sockets=[listener])
    print()
    return 0


def make_app(predictor: Predictor, config: ServeConfig) -> Starlette:
    """Answers GET / with the page, and POST /predict, whose body is an image file, with its classes as JSON."""
    from jinja2 import Template
    from starlette.applications import Starlette
    from starlette.middleware import Middleware
    from starlette.middleware.trustedhost import TrustedHostMiddleware
    from starlette.requests import ClientDisconnect
    from starlette.responses import HTMLResponse, JSONResponse, Response
    from starlette.routing import Route

    max_bytes = int(config.max_megabytes * 1e6)
    max_pixels = min(config.max_pixels, predictor.preprocessing.max_pixels)
    worker = ThreadPoolExecutor(1)  # one image at a time
    name, classes = one_line(config.run.resolve().name), [one_line(each) for each in predictor.classes]
    html = Template(PAGE.read_text(encoding="utf-8"), autoescape=True).render(name=name, classes=classes)

    async def page(request: Request) -> HTMLResponse:
        return HTMLResponse(html, headers={"Content-Security-Policy": CONTENT_POLICY})

    async def predict(request: Request) -> Response:
        if not is_same_origin(request):
            return JSONResponse({"error": "requests from other sites are refused"}, 403)
        content = bytearray()
        try:
            async for part in request.stream():
                if len(content) <= max_bytes:  # the rest is read, too: browsers show an answer only after that
                    content += part
            if len(content) > max_bytes:
                return JSONResponse({"error": f"larger than {max_bytes / 1e6:g} MB; see --max-megabytes"}, 413)
            call = partial(classify, predictor, bytes(content), max_pixels)
            return JSONResponse({"classes": await asyncio.get_running_loop().run_in_executor(worker, call)})
        except BadFileError as error:
            return JSONResponse({"error": next(iter(error.problems.values()))}, 415)
        except ClientDisconnect:
            return Response()

    hosts = Middleware(TrustedHostMiddleware, allowed_hosts=[HOST, "localhost"])  # no other name for this address
    return Starlette(routes=[Route("/", page), Route("/predict", predict, methods=["POST"])], middleware=[hosts])


def is_same_origin(request: Request) -> bool:
    """Whether the request was not sent by a page of another site: browsers name the sender's origin."""
    host, origin = request.headers["host"].lower(), request.headers.get("origin")
    return origin is None or origin.removesuffix(":80") == f"http://{host.removesuffix(':80')}"


def classify(predictor: Predictor, content: bytes, max_pixels: int) -> list[dict[str, Any]]:
    """The most probable classes of an encoded image. Raises BadFileError."""
    check_pixels(content, max_pixels)
    found = predictor.predict(content, NUM_CLASSES_SHOWN, num_workers=1)
    # JSON has no bytes that are not UTF-8.
    return [{"class": one_line(name), "probability": probability} for name, probability in found]


def check_pixels(content: bytes, max_pixels: int) -> None:
    """Raises BadFileError for an image of too many pixels, before any is decoded: 177 million can be 0.2 MB of PNG.

    All other faults are found by the Loader, which may decode a PNG in search of its EXIF.
    """
    from PIL import Image

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", Image.DecompressionBombWarning)
        try:
            width, height = Image.open(io.BytesIO(content)).size
        except Exception:  # Pillow's plugins raise anything on damaged bytes
            return
    if width * height > max_pixels:
        raise BadFileError({"image": f"{width:,} x {height:,} px, expected at most {max_pixels:,}; see --max-pixels"})


if __name__ == "__main__":
    from fastpets.cli import main

    sys.exit(main(["serve", *sys.argv[1:]]))
