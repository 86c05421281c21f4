"""DALI pipelines: parse encoded images, then decode them in batches. Nothing here is random.

In reading order:

    parse.py            reads an image's size from its header; refuses bytes that crash the decoder
    graphs.py           the DALI graph that decodes a batch
    errors.py           what DALI's errors mean
    decode_pipeline.py  a running pipeline: batches go in ahead of time and come out decoded, in order

Importing this package needs one of the two DALI wheels, chosen by CUDA version. Where there is a GPU it starts CUDA, on
the current device: nvImageCodec does. So it is imported only where DALI decodes, and the device is set first.
"""

try:
    import nvidia.dali
    import nvidia.nvimgcodec  # noqa: F401
except ImportError as error:
    raise ImportError(
        "on a GPU, and with decoder='dali', fastpets needs NVIDIA DALI, which has one wheel per CUDA version. In a "
        "clone, run pip install '.[cuda13]', or pip install '.[cuda12]' if the driver is for CUDA 12; not both"
    ) from error

from fastpets.pipelines.decode_pipeline import DecodePipeline, Encoded, release_unused_memory, undecodable
from fastpets.pipelines.errors import UndecodableError
from fastpets.pipelines.graphs import decoded_images, memory_hints
from fastpets.pipelines.parse import ParseError, parse

__all__ = [
    "DecodePipeline",
    "Encoded",
    "ParseError",
    "UndecodableError",
    "decoded_images",
    "memory_hints",
    "parse",
    "release_unused_memory",
    "undecodable",
]
