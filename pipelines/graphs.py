"""The DALI graph that decodes images. Its input is an external source, fed by the name "encoded"."""

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode


@pipeline_def(exec_dynamic=True)  # outputs of the other executor are overwritten while they are in use
def decode_pipeline(*, device: str, hw_decoder_load: float = 0.0) -> DataNode:
    """A pipeline from encoded images, 1-D uint8, to upright RGB images (H, W, 3) uint8, each of its own size.

    `device` is "cpu" or "gpu", `hw_decoder_load` the fraction of a batch, 0-1, for the GPU's JPEG engine.
    """
    encoded = fn.external_source(name="encoded", ndim=1, dtype=types.UINT8, no_copy=True)
    return fn.decoders.image(
        encoded,
        device="mixed" if device == "gpu" else "cpu",
        output_type=types.RGB,
        jpeg_fancy_upsampling=True,  # as Pillow, and as DALI on a CPU
        hw_decoder_load=hw_decoder_load,
    )
