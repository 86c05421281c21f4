"""Only an image that does not decode is a bad file; what else fails in DALI is raised as what it is.

DALI's errors are RuntimeErrors with a text. Those here are from its sources and from issues of NVIDIA/DALI, by number.
"""

import itertools
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastpets import pipelines
from fastpets.loading import loader as loading  # not by the name Loader, which would run these tests twice
from fastpets.pipelines import decode_pipeline
from tests.epochs import pixels_by_id
from tests.images import drawing, encode

IN_AN_OPERATOR = """Critical error in pipeline:
Error in MIXED operator `nvidia.dali.fn.decoders.image`,
which was used in the pipeline definition with the following traceback:

  File "/home/ann/out of memory/pipelines/graphs.py", line 16, in decoded_images
    return fn.decoders.image(

encountered:

{}
Current pipeline object is no longer valid."""
EARLIER = """Critical error in pipeline:
Error when executing Mixed operator decoders__Image, instance name: "__Image_4", encountered:
{}
Current pipeline object is no longer valid."""
OUT_OF_MEMORY = {
    "CUDABadAlloc": RuntimeError(IN_AN_OPERATOR.format("Can't allocate 129499136 bytes on device 0.")),
    "on the host": RuntimeError(IN_AN_OPERATOR.format("Can't allocate 648019968 bytes on host.")),
    "1137": RuntimeError(EARLIER.format("Can't allocate 129499136 bytes on device 0.")),
    "2525": RuntimeError(EARLIER.format("Error in thread 3: CUDA allocation failed")),
    "144": RuntimeError(
        "Critical error in pipeline: CUDA allocation failed\nCurrent pipeline object is no longer valid."
    ),
    "1434": RuntimeError(
        EARLIER.format(
            "Error in thread 0: [/opt/dali/dali/pipeline/operators/decoder/nvjpeg/decoupled_api/"
            'nvjpeg_decoder_decoupled_api.h:355] NVJPEG error "5" : NVJPEG_STATUS_ALLOCATOR_FAILURE ILSVRC2012.JPEG'
        )
    ),
    "3599": RuntimeError("Critical error in pipeline: std::bad_alloc\nCurrent pipeline object is no longer valid."),
    "pybind11": MemoryError("std::bad_alloc"),
    "status of nvImageCodec": RuntimeError(IN_AN_OPERATOR.format("nvImageCodec failure: '#5'")),
    "CUDA": RuntimeError(IN_AN_OPERATOR.format("CUDA driver API error CUDA_ERROR_OUT_OF_MEMORY (2):\nout of memory")),
}
OTHER = {
    "2842": EARLIER.format(
        "Error in thread 0: CUDA runtime API error cudaErrorIllegalAddress (700):\n"
        "an illegal memory access was encountered"
    ),
    "6149": IN_AN_OPERATOR.format(
        "Error in thread 0: CUDA runtime API error cudaErrorInvalidValue (1):\ninvalid argument"
    ),
    "5127": IN_AN_OPERATOR.format("CUDA driver API error CUDA_ERROR_INVALID_DEVICE (101):\ninvalid device ordinal"),
    "4382": EARLIER.format("Error in thread 0: nvml error (999): A nvml internal driver error occurred"),
    "5696": EARLIER.format(
        "Error in thread 0: nvml error (3): The nvml requested operation is not available on target device"
    ),
    "a call of CUDA in nvImageCodec": IN_AN_OPERATOR.format("nvImageCodec failure: '#21'"),
    "execution in nvImageCodec": IN_AN_OPERATOR.format("nvImageCodec failure: '#6'"),
}


class Failing:
    """DALI's pipelines of batches, of which those after the first `good` fail in a `method` with an error.

    A pipeline of single images, as in the search for those that do not decode, does not fail. `made` counts all
    pipelines, and `single` those of single images.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch, method: str, error: Exception, good: int = 0) -> None:
        self.made = self.single = 0
        calls = itertools.count()
        make = decode_pipeline.decoded_images

        def fail() -> None:
            if next(calls) >= good:
                raise error

        def failing(**arguments: Any) -> Any:
            self.made += 1
            pipeline = make(**arguments)
            if arguments["batch_size"] == 1:
                self.single += 1
            else:
                original = getattr(pipeline, method)
                monkeypatch.setattr(pipeline, method, lambda *given: (fail(), original(*given))[1], raising=False)
            return pipeline

        monkeypatch.setattr(decode_pipeline, "decoded_images", failing)


@pytest.fixture
def loader(make_folder: Callable[..., Path]) -> loading.Loader:
    return loading.Loader(make_folder(24), size=16, batch_size=8, decoder="dali", device="cpu", num_workers=2)


@pytest.mark.parametrize("method", ["build", "feed_input", "share_outputs"])
@pytest.mark.parametrize("kind", OUT_OF_MEMORY)
def test_exhausted_memory_is_raised_as_such(
    loader: loading.Loader, monkeypatch: pytest.MonkeyPatch, kind: str, method: str
) -> None:
    failing = Failing(monkeypatch, method, OUT_OF_MEMORY[kind])
    for epoch in range(1, 3):  # it persists, and costs no more each time
        with pytest.raises(torch.OutOfMemoryError, match=r"out of memory in DALI \(.+\); lower batch_size") as raised:
            list(loader)
        assert "\n" not in str(raised.value)
        assert failing.made == epoch
    assert loader.bad_files == {}
    assert all(loader._bad_files.decoder(i) == loader.headers.decoders[i] for i in range(24))


@pytest.mark.parametrize("method", ["build", "share_outputs"])
@pytest.mark.parametrize("kind", OTHER)
def test_errors_of_cuda_and_nvml_are_raised_as_they_are(
    loader: loading.Loader, monkeypatch: pytest.MonkeyPatch, kind: str, method: str
) -> None:
    failing = Failing(monkeypatch, method, RuntimeError(OTHER[kind]))
    for epoch in range(1, 3):
        with pytest.raises(RuntimeError) as raised:
            list(loader)
        assert type(raised.value) is RuntimeError
        assert str(raised.value) == OTHER[kind]
        assert failing.made == epoch
    assert loader.bad_files == {}


def test_batches_before_the_failure_are_delivered(loader: loading.Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    Failing(monkeypatch, "share_outputs", OUT_OF_MEMORY["CUDABadAlloc"], good=2)
    delivered = []
    with pytest.raises(torch.OutOfMemoryError):
        delivered.extend(batch.ids.tolist() for batch in loader)
    assert delivered == [list(range(8)), list(range(8, 16))]


@pytest.mark.parametrize("status", ["Failed to decode sample #3 : ", "nvImageCodec failure: '#3'"])
def test_images_that_decode_on_the_cpu_are_not_to_blame(
    loader: loading.Loader, monkeypatch: pytest.MonkeyPatch, status: str
) -> None:
    """nvImageCodec reports a sample for which a GPU's memory failed as it reports one that is damaged."""
    failing = Failing(monkeypatch, "share_outputs", RuntimeError(IN_AN_OPERATOR.format(status)))
    with pytest.raises(
        RuntimeError, match=r"failed to decode 8 images on cpu \((Failed|nvIm).*each of them on the CPU"
    ):
        list(loader)
    assert (failing.made, failing.single) == (2, 1)
    assert loader.bad_files == {}
    assert all(loader._bad_files.decoder(i) == loader.headers.decoders[i] for i in range(24))


def broken_png(height: int, width: int) -> bytes:
    """A PNG whose header, chunks and checksums are valid, and whose pixels are not: neither DALI nor Pillow decodes."""
    png = encode(drawing(height, width), "PNG")
    start = png.index(b"IDAT")
    length = int.from_bytes(png[start - 4 : start], "big")
    content = b"IDAT" + np.random.default_rng(0).bytes(length)
    return png[:start] + content + zlib.crc32(content).to_bytes(4, "big") + png[start + 8 + length :]


@pytest.mark.parametrize("on_bad_file", ["skip", "replace"])
def test_bad_images_of_a_batch_are_found_together_and_those_that_replace_them_are_checked(
    make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, on_bad_file: str
) -> None:
    folder = make_folder(24)
    bad = [3, 5, 6]  # 6 would replace 5
    paths = loading.Loader(folder, batch_size=8).dataset.paths
    for position in bad:
        Path(paths[position]).write_bytes(broken_png(40, 50))
    monkeypatch.setattr("fastpets.loading.dali_decoding.CHUNK_BYTES", 5000)  # an image or two in each
    repairs = []
    repair = pipelines.undecodable
    monkeypatch.setattr(pipelines, "undecodable", lambda *given: (repairs.append(len(given[0])), repair(*given))[1])
    loader = loading.Loader(folder, size=16, batch_size=8, decoder="dali", device="cpu", on_bad_file=on_bad_file)
    with pytest.warns(UserWarning, match="left out|replaced"):
        batches = list(loader)
    assert [len(batch.ids) for batch in batches] == ([5, 8, 8] if on_bad_file == "skip" else [8, 8, 8])
    assert set(np.concatenate([batch.ids for batch in batches]).tolist()) == set(range(24)) - set(bad)
    assert list(loader.bad_files) == [paths[position] for position in bad]
    assert repairs[0] == 8
    assert sum(repairs) <= 8 + 2 * len(bad)  # the whole batch once, and then what is new in it
    repairs.clear()
    assert len(pixels_by_id(loader)) == 21
    assert repairs == []  # they are known now


def test_a_batch_is_repaired_once(make_folder: Callable[..., Path], monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_folder(8)
    paths = loading.Loader(folder, batch_size=8).dataset.paths
    Path(paths[2]).write_bytes(broken_png(40, 50))
    failing = Failing(
        monkeypatch, "share_outputs", RuntimeError(IN_AN_OPERATOR.format("Failed to decode sample #0 : "))
    )
    loader = loading.Loader(folder, size=16, batch_size=8, decoder="dali", device="cpu", on_bad_file="skip")
    with pytest.warns(UserWarning, match="left out"), pytest.raises(RuntimeError, match="failed to decode 7 images"):
        list(loader)
    assert failing.made - failing.single == 2
    assert list(loader.bad_files) == [paths[2]]
