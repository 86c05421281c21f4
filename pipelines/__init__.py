"""DALI: the graph that decodes batches of encoded images, and the stream that keeps it busy.

Pure functions of what they are fed: nothing random happens here. One of the two DALI wheels is needed, by CUDA version.
"""

try:
    import nvidia.dali
    import nvidia.nvimgcodec  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fastpets needs NVIDIA DALI, whose wheels are one for each CUDA version: "
        "from a clone, pip install '.[cuda13]', or '.[cuda12]' where the driver is for CUDA 12; not both. "
        "Either also works without a GPU"
    ) from error

from fastpets.pipelines.graphs import decoded_images
from fastpets.pipelines.parse import Unparsable, parse
from fastpets.pipelines.stream import Encoded, Stream, undecodable

__all__ = ["Encoded", "Stream", "Unparsable", "decoded_images", "parse", "undecodable"]
