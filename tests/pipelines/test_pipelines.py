"""DALI pipelines decode losslessly encoded images exactly, in order, and keep their memory valid while it is used."""

import numpy as np
import pytest
import torch

from fastpets import pipelines
from tests.images import drawing, encode

SIZES = [(1, 1), (37, 53), (2000, 30), (460, 460)]
CPU = {"device": "cpu", "device_id": None}


def random_image(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def encoded(images: list[np.ndarray]) -> pipelines.Encoded:
    """Encodes images losslessly."""
    return [np.frombuffer(encode(image, "PNG"), np.uint8) for image in images]


def stream(first: list[pipelines.Encoded], batch_size: int) -> pipelines.DecodePipeline:
    return pipelines.DecodePipeline(first, batch_size=batch_size, num_threads=2, **CPU)


def taken(pipeline: pipelines.DecodePipeline) -> list[torch.Tensor]:
    """The images of the oldest batch, as views of its memory."""
    capsule, sizes = pipeline.take()
    images = torch.from_dlpack(capsule).split((3 * sizes.prod(axis=1)).tolist())
    return [image.view(*size, 3) for image, size in zip(images, sizes.tolist(), strict=True)]


def test_decoded_images_equal_the_encoded_ones_each_in_its_own_size() -> None:
    images = [random_image(*size) for size in SIZES]
    for found, image in zip(taken(stream([encoded(images)], 4)), images, strict=True):
        assert found.is_contiguous()
        assert (found.numpy() == image).all()


def test_images_stay_valid_while_referenced_even_after_the_pipeline_is_deleted() -> None:
    images = [[random_image(48, 64, seed=seed), random_image(30, 20, seed=seed)] for seed in range(22)]
    pipeline = stream([encoded(batch) for batch in images[:2]], 2)
    held = []
    for batch in images[2:]:
        held.append(taken(pipeline))
        pipeline.put(encoded(batch))
    del pipeline
    for found, expected in zip(held, images, strict=False):
        assert all((tensor.numpy() == image).all() for tensor, image in zip(found, expected, strict=True))


def test_batches_come_in_order_for_any_number_and_lengths() -> None:
    lengths = [1, 4, 3, 4, 1]
    batches = [[random_image(9, 7, seed=10 * number + k) for k in range(length)]
               for number, length in enumerate(lengths)]  # fmt: skip
    pipeline = stream([encoded(batches[0])], 4)
    for batch in batches[1:]:
        pipeline.put(encoded(batch))  # beyond its prefetch depth
    for batch in batches:
        assert all((a.numpy() == b).all() for a, b in zip(taken(pipeline), batch, strict=True))


@pytest.mark.parametrize("junk", [b"", b"hello", b"GIF89a" + bytes(40), b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n"])
def test_the_parser_refuses_bytes_that_are_not_an_image(junk: bytes) -> None:
    with pytest.raises(pipelines.ParseError):
        pipelines.parse(junk)


def test_the_parser_returns_the_stored_size() -> None:
    assert pipelines.parse(encode(random_image(37, 53), "PNG")) == (37, 53)


def test_undecodable_returns_the_position_of_each_truncated_image() -> None:
    whole = encode(np.asarray(drawing(60, 80)), "JPEG")
    streams = [whole, whole[: len(whole) // 2], whole, whole[: len(whole) // 3]]
    sizes = np.array([[60, 80]] * 4)
    assert pipelines.undecodable([np.frombuffer(stream, np.uint8) for stream in streams], sizes) == [1, 3]


def test_the_parser_refuses_a_png_with_a_chunk_longer_than_the_file() -> None:
    png = encode(random_image(9, 9), "PNG")
    data_start = png.index(b"IDAT") - 4
    oversized = (2**31 - 1).to_bytes(4, "big") + b"prIv" + bytes(4)  # the decoder would allocate 2 GiB
    with pytest.raises(pipelines.ParseError, match="a PNG chunk longer than the file"):
        pipelines.parse(png[:data_start] + oversized + png[data_start:])
    assert pipelines.parse(png + oversized) == (9, 9)  # after IEND, where the decoder does not read
