"""Which damaged JPEGs are bad files does not depend on the decoder, even one that accepts them all, as a GPU's may."""

import io
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFile

from fastpets import pipelines
from fastpets.data import jpeg
from fastpets.loading import loader as loading  # not by the name Loader, which would run these tests twice
from tests.epochs import pixels_by_id, same
from tests.images import drawing, encode

SIZE = (120, 160)
JPEGS = {
    "baseline": encode(drawing(*SIZE), "JPEG"),
    "progressive": encode(drawing(*SIZE), "JPEG", progressive=True),
    "restart markers": encode(drawing(*SIZE), "JPEG", restart_marker_blocks=4),
    "grey": encode(drawing(*SIZE).convert("L"), "JPEG"),
    "4:4:4": encode(drawing(*SIZE), "JPEG", subsampling=0),
    "CMYK": encode(drawing(*SIZE).convert("CMYK"), "JPEG"),
}


def at(content: bytes, share: float) -> int:
    """A position in the data of the scans."""
    start = content.index(b"\xff\xda") + 14
    return start + int(share * (len(content) - start))


def inserted(content: bytes, share: float, what: bytes) -> bytes:
    return content[: at(content, share)] + what + content[at(content, share) :]


BAD: dict[str, Callable[[bytes], bytes]] = {
    **{f"cut at {share}": lambda content, share=share: content[: at(content, share)] for share in (0.02, 0.5, 0.97)},
    "without the end marker": lambda content: content[:-2],
    "without half the end marker": lambda content: content[:-1],
    "zeros at the end": lambda content: content[: at(content, 0.6)] + bytes(len(content) - at(content, 0.6)),
    "ones at the end": lambda content: content[: at(content, 0.6)] + b"\xff" * 999,
    "an unknown marker": lambda content: inserted(content, 0.5, b"\xff\x05"),
    "a second start of a frame": lambda content: inserted(
        content, 0.5, b"\xff\xc0\x00\x0b\x08\0\x10\0\x10\x01\x01\x11\0"
    ),
    "a second start of an image": lambda content: inserted(content, 0.5, b"\xff\xd8"),
}
GOOD: dict[str, Callable[[bytes], bytes]] = {
    "whole": lambda content: content,
    "bytes after the end": lambda content: content + b"\xff\xd8\xff\xe0 another image",
    "fill bytes": lambda content: content[:-2] + b"\xff\xff\xff\xd9",
    "a comment between scans": lambda content: (
        inserted(content, 1, b"")[:-2] + b"\xff\xfe\x00\x06\xff\xd8\xff\x05\xff\xd9"
    ),
    "zeros within": lambda content: content[: at(content, 0.6)] + bytes(40) + content[at(content, 0.6) + 40 :],
    "an early end": lambda content: inserted(content, 0.7, b"\xff\xd9"),
}
DAMAGES = {**BAD, **GOOD}


class Lenient:
    """In place of a DALI pipeline: decodes like Pillow, and returns grey where that fails."""

    def __init__(self, first: Sequence[pipelines.Encoded], **_: Any) -> None:
        self.queue = [*first]

    def put(self, encoded: pipelines.Encoded) -> None:
        self.queue.append(encoded)

    def take(self) -> tuple[np.ndarray, np.ndarray]:
        images = [lenient(each.tobytes()) for each in self.queue.pop(0)]
        return np.concatenate([image.ravel() for image in images]), np.array([image.shape[:2] for image in images])


def lenient(encoded: bytes) -> np.ndarray:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
        try:
            return np.array(Image.open(io.BytesIO(encoded)).convert("RGB"))
        except OSError:
            return np.full((*SIZE, 3), 128, np.uint8)


@pytest.mark.parametrize("kind", JPEGS)
def test_all_decoders_agree(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, damage in DAMAGES.items():
        (tmp_path / f"{name}.jpg").write_bytes(damage(JPEGS[kind]))

    def epoch(decoder: str) -> tuple[set[str], dict[int, Any]]:
        loader = loading.Loader(
            tmp_path, label_from="none", size=SIZE, batch_size=99, decoder=decoder, device="cpu", on_bad_file="skip"
        )
        pixels = pixels_by_id(loader)
        return {Path(path).stem for path in loader.bad_files}, pixels

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        expected, pixels = epoch("auto")
        recovered = {"a second start of a frame", "an unknown marker"}  # by the next restart marker
        assert expected >= set(BAD) - recovered
        assert not expected & {"whole", "bytes after the end", "fill bytes", "zeros within", "an early end"}
        found, with_dali = epoch("dali")
        assert found == expected
        assert same(with_dali, pixels)
        monkeypatch.setattr(pipelines, "DecodePipeline", Lenient)
        assert epoch("dali")[0] == expected


@pytest.mark.parametrize("kind", JPEGS)
def test_damage_is_found_by_markers(kind: str) -> None:
    damaged = {
        name for name, damage in DAMAGES.items() if jpeg.is_damaged(np.frombuffer(damage(JPEGS[kind]), np.uint8))
    }
    assert damaged == set(BAD)


@pytest.mark.parametrize("kind", JPEGS)
def test_a_file_cut_short_anywhere_is_damaged(kind: str) -> None:
    whole = np.frombuffer(JPEGS[kind], np.uint8)
    assert all(jpeg.is_damaged(whole[:size]) for size in range(len(jpeg.START), len(whole)))


def test_markers_are_found_at_any_position() -> None:
    """Also at the ends of the blocks that are searched at once."""
    whole = JPEGS["CMYK"]
    start = whole.index(b"\xff\xda") + 16  # the segment of four components has 16 bytes
    assert len(whole) - start > 5 * jpeg.BLOCK
    for i in range(start, len(whole) - 2):
        for inserted, is_damage in ((b"\xff\x05", True), (b"\xff\0\xff\xd7", False), (b"\xff\xd9\xff\x05", False)):
            content = np.frombuffer(whole[:i] + inserted + whole[i:], np.uint8)
            assert jpeg.is_damaged(content) == is_damage, (i, inserted)


def test_only_jpegs_are_examined() -> None:
    for content in (b"", b"\xff", encode(drawing(9, 9), "PNG")):
        assert not jpeg.is_damaged(np.frombuffer(content, np.uint8))
