"""The DALI graph that decodes images. Its input is an external source, fed by the name "encoded"."""

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode


@pipeline_def(exec_dynamic=True)
def decoded_images(*, device: str, hw_decoder_load: float = 0.0) -> DataNode:
    """Decodes a batch of encoded images, 1-D uint8, to RGB images (H, W, 3) uint8 as stored, each of its own size.

    `device`, "cpu" or "gpu", is where images are decoded and returned. `jpeg_fancy_upsampling` interpolates chroma as
    Pillow does; without it, pixels would equal neither Pillow's nor, on a GPU, the CPU's. EXIF orientation is ignored:
    it is part of each image's matrix.
    """
    encoded = fn.external_source(name="encoded", ndim=1, dtype=types.UINT8, no_copy=True)
    return fn.decoders.image(
        encoded,
        device="mixed" if device == "gpu" else "cpu",
        output_type=types.RGB,
        jpeg_fancy_upsampling=True,
        adjust_orientation=False,
        hw_decoder_load=hw_decoder_load,
    )
