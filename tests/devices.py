"""Parametrisations by device: the CPU, and a GPU if there is one; what a GPU has."""

import ctypes
import functools
from pathlib import Path

import nvidia
import pytest
import torch

GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA GPU, and torch sees none"),
]
TWO_GPUS = [
    pytest.mark.gpu,
    pytest.mark.skipif(torch.cuda.device_count() < 2, reason="needs two CUDA GPUs"),
]
DEVICES = ["cpu", pytest.param("cuda", marks=GPU)]


@functools.cache
def num_jpeg_engines() -> int:
    """The hardware JPEG decoders of the current GPU, asked as DALI's decoder asks; 0 if there is no answer.

    Without any, as on T4 and GeForce, DALI decodes in software and does not say so.
    """
    libraries = [file for folder in nvidia.__path__ for file in Path(folder).glob("*/lib/libnvjpeg.so.*")]
    if not torch.cuda.is_available() or not libraries:
        return 0
    torch.cuda.init()
    nvjpeg, handle = ctypes.CDLL(str(libraries[0])), ctypes.c_void_p()
    engines, cores, hardware = ctypes.c_uint(), ctypes.c_uint(), 3  # NVJPEG_BACKEND_HARDWARE
    if nvjpeg.nvjpegCreateEx(hardware, None, None, 0, ctypes.byref(handle)):
        return 0
    status = nvjpeg.nvjpegGetHardwareDecoderInfo(handle, ctypes.byref(engines), ctypes.byref(cores))
    nvjpeg.nvjpegDestroy(handle)
    return 0 if status else engines.value
