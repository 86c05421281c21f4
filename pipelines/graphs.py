"""The DALI graph that decodes images. Its input is an external source, fed by the name "encoded"."""

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

# DALI's example that trains a ResNet-50 has 211 and 141 MB for ImageNet, with hints of 5,980 x 6,430 pixels.
DEVICE_BYTES_PER_PIXEL, HOST_BYTES_PER_PIXEL = 6, 4


@pipeline_def(exec_dynamic=True)
def decoded_images(*, device: str, hw_decoder_load: float = 0.0, hints: dict[str, int] | None = None) -> DataNode:
    """Decodes a batch of encoded images, 1-D uint8, to RGB images (H, W, 3) uint8 as stored, each of its own size.

    `device`, "cpu" or "gpu", is where images are decoded and returned. `jpeg_fancy_upsampling` interpolates chroma as
    Pillow does; without it, pixels would equal neither Pillow's nor, on a GPU, the CPU's. EXIF orientation is ignored:
    it is part of each image's matrix. `hints` are those of `memory_hints`.
    """
    encoded = fn.external_source(name="encoded", ndim=1, dtype=types.UINT8, no_copy=True)
    return fn.decoders.image(
        encoded,
        device="mixed" if device == "gpu" else "cpu",
        output_type=types.RGB,
        jpeg_fancy_upsampling=True,
        adjust_orientation=False,
        hw_decoder_load=hw_decoder_load,
        **(hints or {}),
    )


def memory_hints(height: int, width: int, *, max_bytes: int) -> dict[str, int]:
    """What the decoder of a GPU allocates in advance, instead of again for each image that is larger than those before.

    `height` and `width` are of the largest image. Each of DALI's threads has a buffer on the GPU and two on the host,
    of up to `max_bytes` each; by default they have 16 and 8 MiB for images of any size. The hardware decoder allocates
    by height and width.
    """
    return {
        "device_memory_padding": min(DEVICE_BYTES_PER_PIXEL * height * width, max_bytes),
        "host_memory_padding": min(HOST_BYTES_PER_PIXEL * height * width, max_bytes),
        "preallocate_height_hint": height,
        "preallocate_width_hint": width,
    }
