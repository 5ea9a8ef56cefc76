"""Where and in which precision to compute, decided by what the machine has; and how values get there."""

from typing import Literal

import torch
from torch import Tensor

from training.recipe.config import Compile, EncoderConfig, Precision


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; "auto" is CUDA where there is one, else the CPU.

    Raises ValueError if there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise ValueError(f"device is {name!r}; accepted: auto, cpu, cuda, cuda:N") from error
    if device.type not in ("cpu", "cuda"):
        raise ValueError(f"device is {name!r}; accepted: auto, cpu, cuda, cuda:N")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"device is {name!r}, but this machine has {torch.cuda.device_count()} CUDA devices")
    return device


def choose_precision(precision: Precision, device: torch.device, encoder: EncoderConfig) -> Literal["fp32", "bf16"]:
    """`precision` itself, or for "auto" bf16 where the device computes in it natively, else fp32.

    On a CPU without bf16 instructions autocast works, but slower than fp32. And on a CPU the bf16 gradient of
    a strided convolution over a 1x1 map is left unset where the kernel lies in the padding (oneDNN, torch
    2.14: weights turn to NaN), so "auto" avoids it there, and asking for it is a ValueError. The `image_size` of
    `encoder` is that of the smallest views.
    """
    unsafe = device.type == "cpu" and encoder.smallest_strided_map < 2
    if precision == "bf16" and unsafe:
        raise ValueError(
            f"precision is 'bf16', but views of {encoder.image_size} px are 1x1 before the last strided "
            f"convolution with the stem {encoder.resolved_stem!r}; on a CPU take fp32, larger views or another stem"
        )
    if precision != "auto":
        return precision
    if device.type == "cuda":
        native = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        capabilities = torch.cpu.get_capabilities()
        native = bool(capabilities.get("avx512_bf16") or capabilities.get("amx_bf16"))
    return "bf16" if native and not unsafe else "fp32"


def should_compile(choice: Compile, device: torch.device, *, processes: int = 1) -> bool:
    """Whether to compile the network: "on", "off", or "auto", which is on for one process on CUDA.

    On a CPU compiling takes a minute and makes it slower. With several processes SyncBatchNorm breaks the graph at
    every layer (torch 2.14).
    """
    return choice == "on" or (choice == "auto" and device.type == "cuda" and processes == 1)


def sent(values: Tensor, device: torch.device) -> Tensor:
    """A CPU tensor on the device; a GPU is not waited for, which a copy from pageable memory would do."""
    return values.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else values.to(device)
