"""The machine at hand: what it is, how fast it moves bytes, and how much memory a call takes."""

from __future__ import annotations

import ctypes
import gc
import platform
import statistics
import subprocess
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from benchmarks.clock import Clock
from iir_fast.app.machine import memory_bytes, processor
from iir_fast.kernels.native.memory import memory

COPY_BYTES = 1 << 28
COPIES = 1.5
"""Of the features, each a read and a write of them, that a step moves at least."""
GPU_STATE = ("sm_clock_mhz", "memory_clock_mhz", "power_w", "power_limit_w")
SECONDS_FOR_THE_DRIVER = 20
_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def describe(device: str) -> dict[str, Any]:
    """Processor, threads, memory, versions and, of a GPU, what it is and how its driver runs it; for a JSON file."""
    found: dict[str, Any] = {
        "device": device,
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory_bytes(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "triton": _version("triton"),
        "iir_fast": _version("iir-fast"),
    }
    if device == "cuda":
        major, minor = torch.cuda.get_device_capability()
        found |= {
            "gpu": torch.cuda.get_device_name(),
            "gpu_memory_bytes": torch.cuda.mem_get_info()[1],
            "gpu_architecture": torch.cuda.get_device_properties(0).gcnArchName
            if torch.version.hip
            else f"sm_{major}{minor}",
            "cuda": torch.version.hip or torch.version.cuda,
            "driver": _driver(),
            "gpu_state": gpu_state(),
        }
    return found


def gpu_state() -> dict[str, Any]:
    """Name, clocks [MHz] and power [W] of the GPU, as its driver says them.

    Where they cannot be had, nvidia-ml-py not being installed or the driver keeping silent, they are None, and
    "missing" says why.
    """
    found: dict[str, Any] = {"name": torch.cuda.get_device_name(), **dict.fromkeys(GPU_STATE)}
    try:
        import pynvml
    except ModuleNotFoundError:
        return {**found, "missing": "nvidia-ml-py is not installed"}
    try:
        pynvml.nvmlInit()
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{torch.cuda.get_device_properties(0).uuid}")
        found["sm_clock_mhz"] = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_SM)
        found["memory_clock_mhz"] = pynvml.nvmlDeviceGetClockInfo(handle, pynvml.NVML_CLOCK_MEM)
        found["power_w"] = pynvml.nvmlDeviceGetPowerUsage(handle) / 1000
        found["power_limit_w"] = pynvml.nvmlDeviceGetEnforcedPowerLimit(handle) / 1000
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        found["missing"] = f"the driver says: {error}"
    return found


def _driver() -> str | None:
    """Version of NVIDIA's driver; None where its own program does not say."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=SECONDS_FOR_THE_DRIVER)
    except (OSError, subprocess.SubprocessError):
        return None
    return next(iter(done.stdout.splitlines()), None)


def copy_bandwidth(clock: Clock, device: str, size: int = COPY_BYTES) -> float:
    """Bytes per second, read and written, of copying `size` bytes that no cache holds; median of 9."""
    source, target = (torch.ones(size // 4, device=device) for _ in range(2))
    seconds = [clock.seconds(lambda: target.copy_(source)) for _ in range(10)]
    return 2 * source.nbytes / statistics.median(seconds[1:])


def floor_calls(features: Tensor, weights: Tensor) -> dict[str, Callable[[], object]]:
    """What the whole step cannot do without: features copied, and the classifiers' matrix products.

    A step reads the features forward and again backward, and writes their gradient: one and a half copies of them, at
    the speed that a copy of their size has, from memory or from a cache, into memory that is there already. The
    products are the logits of both classifiers and the gradients through them, which read the weights and write their
    gradient.

    Args:
        features: [B,C,H,W].
        weights: [2,K,C], in the dtype in which a step makes logits of them.

    Returns:
        "copy" and "products"; the floor's time is `COPIES` times that of the one and that of the other.
    """
    source, target = torch.ones_like(features), torch.empty_like(features)
    classifiers, classes, channels = weights.shape
    pooled = torch.ones(classifiers, len(features), channels, dtype=weights.dtype, device=weights.device)
    grad_logits = torch.ones(classifiers, len(features), classes, dtype=weights.dtype, device=weights.device)

    def products() -> None:
        torch.bmm(pooled, weights.transpose(1, 2))
        torch.bmm(grad_logits, weights)
        torch.bmm(grad_logits.transpose(1, 2), pooled)

    return {"copy": lambda: target.copy_(source), "products": products}


def extra_peak_bytes(call: Callable[[], object], device: str) -> int | None:
    """Most memory that a warm call holds beyond what is held before it.

    On the CPU it is the process's resident set, which Linux alone lets us reset; None elsewhere. The least of
    three calls counts: what the kernel took from the process and gives back during a call, such as pages of
    libraries, is not the call's. What the C library's allocator keeps of memory freed during the call counts: it
    does so where older blocks left holes in its heap that are large enough, so a young process measures best.
    """
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    if not _CLEAR.exists():
        return None
    return min(_resident_growth(call) for _ in range(3))


def _resident_growth(call: Callable[[], object]) -> int:
    # Freed memory that an allocator keeps would hide what the call takes of it.
    memory.release()
    if hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
    _CLEAR.write_text("5")
    before = status_bytes("VmRSS")
    call()
    return max(status_bytes("VmHWM") - before, 0)


def status_bytes(field: str) -> int:
    """A size out of what Linux says of this process, such as VmRSS."""
    line = next(line for line in _STATUS.read_text().splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) * 1024


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None
