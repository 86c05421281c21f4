"""The DALI graphs, each on one screen. Their inputs are external sources, fed by name."""

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode


def _decoded(device: str) -> DataNode:
    """Encoded bytes -> upright pictures (H, W, 3) uint8, on the device.

    The choices that decoding equals Pillow's and the CPU's rest on: exact chroma upsampling, no hardware decoder
    (on H100, nvJPEG's engine was reported to ignore stream order: pytorch/torchcodec pull request 1634).
    """
    encoded = fn.external_source(name="encoded", ndim=1, dtype=types.UINT8, no_copy=True)
    return fn.decoders.image(
        encoded,
        device="mixed" if device == "gpu" else "cpu",
        output_type=types.RGB,
        jpeg_fancy_upsampling=True,
        hw_decoder_load=0.0,
    )


@pipeline_def(exec_dynamic=True)
def decoded_pictures(*, device: str) -> DataNode:
    """encoded (ragged) uint8 -> pictures (H, W, 3) uint8, ragged. `device` is "cpu" or "gpu"."""
    return _decoded(device)


@pipeline_def(exec_dynamic=True, enable_conditionals=True)
def warped_pictures(*, size: int, device: str) -> DataNode:
    """encoded, shrunk_size (2,) float32, is_shrunk bool, source_from_output (3, 3) float32 -> (S, S, 3) uint8.

    A picture is resized to `shrunk_size` (height, width) with an antialiasing filter if `is_shrunk`; the others go
    around the resize, which would take longer than their decoding. The matrix maps into the picture after that.
    Borders reflect about the pictures' edges.
    """
    shrunk_size = fn.external_source(name="shrunk_size", ndim=1, dtype=types.FLOAT)
    is_shrunk = fn.external_source(name="is_shrunk", ndim=0, dtype=types.BOOL)
    source_from_output = fn.external_source(name="source_from_output", ndim=2, dtype=types.FLOAT)
    pictures = _decoded(device)
    if is_shrunk:
        pictures = fn.resize(pictures, size=shrunk_size, subpixel_scale=False)
    return fn.experimental.warp_perspective(
        pictures, matrix=source_from_output, size=(size, size), border_mode="reflect", pixel_origin="corner"
    )
