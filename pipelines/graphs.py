"""The DALI graph, on one screen. Its input is an external source, fed by name."""

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode


@pipeline_def(exec_dynamic=True)
def decoded_images(*, device: str, hw_decoder_load: float = 0.0) -> DataNode:
    """encoded (ragged) uint8 -> upright images (H, W, 3) uint8, ragged. `device` is "cpu" or "gpu".

    Exact chroma upsampling is what decoding rests on that equals Pillow's and the CPU's.
    """
    encoded = fn.external_source(name="encoded", ndim=1, dtype=types.UINT8, no_copy=True)
    return fn.decoders.image(
        encoded,
        device="mixed" if device == "gpu" else "cpu",
        output_type=types.RGB,
        jpeg_fancy_upsampling=True,
        hw_decoder_load=hw_decoder_load,
    )
