"""What this machine has: cores, int8 instructions, GPUs, TensorRT. It decides how the graph runs."""

import ctypes
import math
import os
import platform
from functools import cache
from pathlib import Path

from core.machine.quota import cpu_quota

_MOST_WORKERS = 4
# x86: dot products of int8 vectors (VNNI, AMX); Arm: SDOT/UDOT, and the matrix form of it
_INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def usable_cores() -> int:
    """Cores this process may use: those of its affinity mask, or fewer where a container's quota grants less time.

    A quota of one and a half cores counts as two: one thread could not use it up.
    """
    cores = len(os.sched_getaffinity(0))
    quota = cpu_quota()
    return cores if quota is None else min(cores, max(1, math.ceil(quota)))


def default_workers() -> int:
    """The number of a server's worker processes: two for each GPU, or else one for each core, but at most four.

    One works while another's answers are written and its next requests read. A few are enough for that, and each holds
    the graph in memory; on a CPU the cores are shared out among them.
    """
    gpus = cuda_devices()
    return 2 * gpus if gpus else min(usable_cores(), _MOST_WORKERS)


@cache
def int8_instructions() -> str | None:
    """The CPU's instructions for int8 dot products, by name; None if it has none, so int8 would not be faster."""
    if platform.system() != "Linux":
        return None
    return int8_instructions_in(Path("/proc/cpuinfo").read_text())


def int8_instructions_in(cpuinfo: str) -> str | None:
    """The same for the text of a /proc/cpuinfo: in its first `flags` (x86) or `Features` (Arm)."""
    for line in cpuinfo.splitlines():
        name, _, value = line.partition(":")
        if name.strip() in ("flags", "Features"):
            return min(_INT8_FLAGS & set(value.split()), default=None)
    return None


def cuda_devices() -> int:
    """The number of CUDA GPUs, asked of the driver itself, without torch."""
    try:
        driver = ctypes.CDLL("libcuda.so.1")
    except OSError:
        return 0
    count = ctypes.c_int(0)
    if driver.cuInit(0) != 0 or driver.cuDeviceGetCount(ctypes.byref(count)) != 0:
        return 0
    return count.value


def tensorrt_here() -> bool:
    """Whether TensorRT's library can be loaded; ONNX Runtime brings only the code that calls it."""
    try:
        ctypes.CDLL("libnvinfer.so.10")
    except OSError:
        return False
    return True
