"""Decoding by NVIDIA DALI. Decoded images depend on the encoded bytes alone; nothing random happens here.

In reading order:

    parse.py    checks encoded bytes before they go to DALI, which crashes on some that are no image
    graphs.py   the DALI graph: encoded bytes to RGB images
    stream.py   feeds batches to a pipeline and takes decoded ones, in order

Importing this package requires one of the two DALI wheels, for CUDA 13 or 12, with or without a GPU.
"""

try:
    import nvidia.dali
    import nvidia.nvimgcodec  # noqa: F401
except ImportError as error:
    raise ImportError(
        "fastpets needs NVIDIA DALI, which has a wheel for each CUDA version. In a clone of fastpets, run "
        "pip install '.[cuda13]', or '.[cuda12]' if the GPU's driver is for CUDA 12, not both; "
        "without a GPU either works"
    ) from error

from fastpets.pipelines.graphs import decode_pipeline
from fastpets.pipelines.parse import Unparsable, parse
from fastpets.pipelines.stream import Encoded, Stream, undecodable

__all__ = ["Encoded", "Stream", "Unparsable", "decode_pipeline", "parse", "undecodable"]
