"""The DALI graph, on one screen. Its input is an external source, fed by name."""

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode


@pipeline_def(exec_dynamic=True)
def decoded_pictures(*, device: str) -> DataNode:
    """encoded (ragged) uint8 -> upright pictures (H, W, 3) uint8, ragged. `device` is "cpu" or "gpu".

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
