"""The DALI graph that decodes images. Its input is an external source, fed by the name "encoded"."""

from typing import Any

from nvidia.dali import fn, pipeline_def, types
from nvidia.dali.data_node import DataNode

# Estimates, not measured: NVIDIA's training of a ResNet-50 on ImageNet, with images of up to 5,980 x 6,430 pixels, sets
# about 211 and 141 MB.
DEVICE_BYTES_PER_PIXEL, HOST_BYTES_PER_PIXEL = 6, 4


@pipeline_def(exec_dynamic=True)
def decoded_images(*, device: str, hw_decoder_load: float = 0.0, hints: dict[str, Any] | None = None) -> DataNode:
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


def memory_hints(height: int, width: int, *, num_threads: int, num_in_hardware: int, max_bytes: int) -> dict[str, int]:
    """What the decoder of a GPU allocates in advance, and not again for each image that is larger than those before.

    `height` and `width` are of the largest image. Each of DALI's threads has a buffer on the GPU and two on the host;
    by default they have 16 and 8 MiB for images of any size. The hardware decoder allocates for `num_in_hardware`
    images together. None of the three allocates more than `max_bytes` in advance.
    """
    limit, pixels = max_bytes // num_threads, height * width
    hints = {
        "device_memory_padding": min(DEVICE_BYTES_PER_PIXEL * pixels, limit),
        "host_memory_padding": min(HOST_BYTES_PER_PIXEL * pixels, limit // 2),
    }
    if 0 < 3 * pixels * num_in_hardware <= max_bytes:
        hints |= {"preallocate_height_hint": height, "preallocate_width_hint": width}
    return hints
