"""DALI's graphs: what they compute equals the reference, and what they deliver stays valid."""

from functools import partial

import numpy as np
import pytest
import torch

from fastpets import pipelines
from fastpets.kernels import reference
from tests.pictures import drawing, encode

SIZES = [(1, 1), (37, 53), (2000, 30), (460, 460)]
CPU = {"device": "cpu", "device_id": None}


def warped(
    pictures: list[np.ndarray], matrices: np.ndarray, size: int, shrunk: np.ndarray | None = None
) -> torch.Tensor:
    """The pictures through the product's graph, as losslessly encoded files; shrunk to (h', w') where given."""
    sizes = np.array([picture.shape[:2] for picture in pictures])
    inputs = {
        "encoded": [np.frombuffer(encode(picture, "PNG"), np.uint8) for picture in pictures],
        "shrunk_size": (sizes if shrunk is None else shrunk).astype(np.float32),
        "is_shrunk": np.zeros(len(pictures), bool) if shrunk is None else (shrunk != sizes).any(axis=1),
        "source_from_output": np.broadcast_to(matrices, (len(pictures), 3, 3)).astype(np.float32),
    }
    graph = partial(pipelines.warped_pictures, size=size, batch_size=len(pictures), num_threads=2, **CPU)
    return torch.from_dlpack(pipelines.Stream(graph, [inputs]).take()).clone()


def random_picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("size", SIZES)
def test_the_identity_gives_the_picture_back(size: tuple[int, int]) -> None:
    picture = random_picture(*size)
    side = min(size)
    assert (warped([picture], np.eye(3), side)[0].numpy() == picture[:side, :side]).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_whole_pixel_shift_equals_a_slice(size: tuple[int, int]) -> None:
    picture = random_picture(*size)
    side = max(1, min(size) // 2)
    down, right = min(3, size[0] - side), min(2, size[1] - side)
    shift = np.array([[1, 0, right], [0, 1, down], [0, 0, 1]])
    assert (warped([picture], shift, side)[0].numpy() == picture[down : down + side, right : right + side]).all()


@pytest.mark.parametrize("size", SIZES)
def test_a_flip_and_a_quarter_turn_move_pixels_only(size: tuple[int, int]) -> None:
    side = min(size)
    picture = random_picture(side, side)
    flip = np.array([[-1, 0, side], [0, 1, 0], [0, 0, 1]])
    turn = np.array([[0, 1, 0], [-1, 0, side], [0, 0, 1]])
    assert (warped([picture], flip, side)[0].numpy() == picture[:, ::-1]).all()
    assert (warped([picture], turn, side)[0].numpy() == np.rot90(picture, -1)).all()


def test_warped_pixels_equal_the_reference_to_one_step_in_a_ragged_batch() -> None:
    pictures = [np.asarray(drawing(height, width, seed=height)) for height, width in SIZES]
    random = np.random.default_rng(0)
    matrices = []
    for picture in pictures:
        height, width = picture.shape[:2]
        square = np.diag([width, height, 1.0]) @ (np.eye(3) + random.normal(0, [[0.1], [0.1], [0.05]], (3, 3)))
        matrices.append(square @ np.diag([1 / 64, 1 / 64, 1]))
    matrices = np.float32(matrices)
    found = warped(pictures, matrices, 64).int()
    expected = reference.warp([torch.tensor(picture) for picture in pictures], torch.from_numpy(matrices), 64).int()
    difference = (found - expected).abs()
    # DALI computes coordinates in float32: 2**-24 of 2,000 px, some ten operations, against slopes up to 255 a pixel,
    # move a value by at most 0.3; a value near a half is then rounded to the other neighbour, and no further.
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01


def test_shrinking_gives_the_promised_size_and_leaves_the_other_pictures_alone() -> None:
    large, small = np.asarray(drawing(400, 601)), random_picture(37, 53)
    shrunk = np.array([[100, 150], [37, 53]])
    # Matrices that show the whole of each picture, whatever its size is then.
    whole = [np.diag([w / 30, h / 30, 1]) for h, w in shrunk]
    found = warped([large, small], np.array(whole), 30, shrunk)
    alone = warped([small], whole[1], 30)
    assert (found[1] == alone[0]).all()
    from PIL import Image

    pillow = np.array(Image.fromarray(large).resize((150, 100), Image.Resampling.BILINEAR))  # antialiased too
    expected = reference.warp([torch.from_numpy(pillow)], torch.tensor(whole[0])[None], 30)[0]
    assert (found[0].int() - expected.int()).abs().float().mean() < 1  # two libraries' roundings


def test_batches_stay_valid_while_held_also_after_the_pipeline_is_gone() -> None:
    picture = random_picture(48, 48)
    encoded = np.frombuffer(encode(picture, "PNG"), np.uint8)

    def inputs(shift: int) -> pipelines.Inputs:
        matrix = np.array([[1, 0, shift], [0, 1, 0], [0, 0, 1]], np.float32)
        return {
            "encoded": [encoded],
            "shrunk_size": np.array([[48, 48]], np.float32),
            "is_shrunk": np.array([False]),
            "source_from_output": matrix[None],
        }

    graph = partial(pipelines.warped_pictures, size=24, batch_size=1, num_threads=1, **CPU)
    stream = pipelines.Stream(graph, [inputs(0), inputs(1)])
    held = []
    for shift in range(2, 22):
        held.append(torch.from_dlpack(stream.take()))
        stream.put(inputs(shift))
    del stream
    for shift, pixels in enumerate(held):
        assert (pixels[0].numpy() == picture[:24, shift : shift + 24]).all()


@pytest.mark.parametrize("junk", [b"", b"hello", b"GIF89a" + bytes(40), b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_what_is_no_picture_does_not_pass_the_parser(junk: bytes) -> None:
    with pytest.raises(pipelines.Unparsable):
        pipelines.parse(junk)


def test_the_parser_gives_the_stored_size() -> None:
    assert pipelines.parse(encode(random_picture(37, 53), "PNG")) == (37, 53)


def test_undecodable_names_every_culprit_of_a_batch() -> None:
    whole = encode(np.asarray(drawing(60, 80)), "JPEG")
    streams = [whole, whole[: len(whole) // 2], whole, whole[: len(whole) // 3]]
    assert pipelines.undecodable([np.frombuffer(stream, np.uint8) for stream in streams], **CPU) == [1, 3]
