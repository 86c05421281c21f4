"""What a RuntimeError of DALI means: an image that does not decode, memory that is exhausted, or neither."""

import contextlib
import re
from collections.abc import Iterator

import torch

# DALI's C++ exceptions reach Python as RuntimeError or MemoryError, with nothing but a text. These are the texts of
# DALI's CUDABadAlloc, NvmlBadAlloc and std::bad_alloc, of CUDA's and nvJPEG's errors, and of nvImageCodec's statuses.
OUT_OF_MEMORY = re.compile(
    r"CUDA allocation failed|(can't|cannot|could not|failed to) allocate|bad_alloc|out of memory|insufficient memory"
    r"|cudaErrorMemoryAllocation|NVJPEG_STATUS_ALLOCATOR_FAILURE|nvImageCodec failure: '#(5|15)'",
    re.IGNORECASE,
)
# The statuses are: bad code stream, unsupported code stream, both again of an extension, an extension's internal error
# (the PNG parser's at the end of the stream), unsupported implementation, incomplete stream.
UNDECODABLE = re.compile(r"Failed to decode sample #\d+|nvImageCodec failure: '#(3|4|13|14|17|18|19)'")


class UndecodableError(RuntimeError):
    """DALI says that an image of a batch does not decode.

    On a GPU this need not be the image's fault: nvImageCodec reports a sample for which memory or the GPU failed in
    the same way.
    """


@contextlib.contextmanager
def translated() -> Iterator[None]:
    """Turns an error of DALI into UndecodableError or torch.OutOfMemoryError, or raises it as it is."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        what = str(error).rpartition("encountered:")[2]  # what comes before says where, with lines of source code
        if isinstance(error, MemoryError) or OUT_OF_MEMORY.search(what):
            raise torch.OutOfMemoryError(
                f"out of memory in DALI ({_first_line(what)}); lower batch_size, num_workers or cache_gb"
            ) from error
        if UNDECODABLE.search(what):
            raise UndecodableError(_first_line(what)) from error
        raise


def _first_line(text: str) -> str:
    return next((line.strip() for line in text.splitlines() if line.strip()), "std::bad_alloc")
