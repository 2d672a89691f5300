"""Compile a kernel launch for a GPU that is not there, and read what the compiler made of it."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import triton
from triton.backends.compiler import GPUTarget

from iir_fast.kernels.launch import Launch

TARGETS = {
    "sm_80": GPUTarget("cuda", 80, 32),
    "sm_90": GPUTarget("cuda", 90, 32),
    "sm_100": GPUTarget("cuda", 100, 32),
    "gfx942": GPUTarget("hip", "gfx942", 64),
}


@dataclass(frozen=True)
class Resources:
    """What one compiled kernel takes."""

    registers: int
    """Per thread (vector registers on AMD)."""
    shared: int
    """Bytes per program."""
    spilled: int
    """Bytes of stack per thread; on AMD the number of spilled registers plus bytes of private memory."""
    widths: dict[str, tuple[int, ...]]
    """Bytes that one thread loads at once from each pointer argument, every width that occurs; empty on AMD."""
    atomics: int
    """Instructions whose order the hardware is free to choose."""


class _NoDevice:
    """Stands where Triton expects a GPU's driver: it names the target, and nothing can be launched on it."""

    def __init__(self, target: GPUTarget) -> None:
        self._target = target

    def get_current_target(self) -> GPUTarget:
        return self._target

    def get_current_device(self) -> str:
        return str(self._target)

    def get_current_stream(self, device: str) -> None:
        return None


def compile_launch(launch: Launch, target: str) -> Any:
    """Compile as a launch on that GPU would, with the same specialization of pointers and integers.

    Args:
        launch: its tensors may be on the meta device, where every pointer counts as aligned, as a new tensor's is.
        target: a key of `TARGETS`.

    Returns:
        Triton's compiled kernel; `hash` names the variant, `asm` holds the code of every stage.
    """
    with _in_place_of_the_gpu(_NoDevice(TARGETS[target])):
        return launch.kernel.warmup(
            grid=launch.grid,
            **launch.arguments,
            **launch.constants,
            **launch.options,
        )


@contextmanager
def _in_place_of_the_gpu(driver: _NoDevice) -> Iterator[None]:
    """Put a driver where Triton looks for that of the GPU, which is back afterwards: others launch in this process."""
    # Not `active`: to read that makes Triton look for a GPU. None says that it has not looked yet.
    before = triton.runtime.driver._active
    triton.runtime.driver.set_active(driver)
    try:
        yield
    finally:
        triton.runtime.driver.set_active(before)


def read_resources(kernel: Any) -> Resources:
    """Read registers, memory, spills and load widths out of a compiled kernel."""
    if kernel.metadata.target.backend == "hip":
        found = {name: int(value) for name, value in re.findall(r"\.(\w+):\s+(\d+)$", kernel.asm["amdgcn"], re.M)}
        spilled = found["vgpr_spill_count"] + found["sgpr_spill_count"] + found["private_segment_fixed_size"]
        atomics = len(re.findall(r"_atomic_", kernel.asm["amdgcn"]))
        return Resources(found["vgpr_count"], kernel.metadata.shared, spilled, {}, atomics)
    found = {name: int(value) for name, value in re.findall(r"(\w+):(\d+)", _resource_usage(kernel.asm["cubin"]))}
    parameters = [(name, kind) for name, kind in kernel.src.signature.items() if kind != "constexpr"]
    pointers = {number: name for number, (name, kind) in enumerate(parameters) if kind.startswith("*")}
    widths = load_widths(kernel.asm["ptx"], pointers)
    atomics = len(re.findall(r"^\s*(?:@!?%p\d+\s+)?(?:atom|red)\.", kernel.asm["ptx"], re.MULTILINE))
    return Resources(found["REG"], kernel.metadata.shared, found["STACK"], widths, atomics)


def occupancy(resources: Resources, num_warps: int) -> float:
    """Share of an H100 multiprocessor's 64 warps that registers and shared memory leave room for."""
    per_warp = 32 * 8 * -(-resources.registers // 8)
    by_registers = 4 * (65536 // 4 // per_warp) // num_warps
    by_shared = 228 * 1024 // (resources.shared + 1024)
    return min(by_registers, by_shared, 64 // num_warps, 32) * num_warps / 64


def load_widths(ptx: str, pointers: dict[int, str]) -> dict[str, tuple[int, ...]]:
    """Find what every global load reads, by following its address back to the kernel's parameters.

    Args:
        ptx: the kernel's code.
        pointers: number of a parameter -> name.

    Returns:
        Name -> every number of bytes that a thread loads from there with one instruction, ascending.
    """
    origins: dict[str, set[str]] = {}
    widths: dict[str, set[int]] = {}
    seen = -1
    # Until nothing is new: in a loop an address may be written below where it is read.
    while seen != (seen := sum(map(len, origins.values()))):
        for opcode, operands in re.findall(r"^\s*(?:@!?%p\d+\s+)?([a-z][\w.:]*)\s+(.*);", ptx, re.MULTILINE):
            used = re.findall(r"%\w+", operands)
            if opcode.startswith("ld.param"):
                number = int(operands.rpartition("_param_")[2].split("]")[0])
                if number in pointers:
                    origins.setdefault(used[0], set()).add(pointers[number])
            elif opcode.startswith(("ld.global", "cp.async.c")):
                address = re.findall(r"\[\s*(%\w+)", operands)[-1]
                for name in origins.get(address, ()):
                    widths.setdefault(name, set()).add(_bytes_per_thread(opcode, operands))
            elif used and not opcode.startswith(("ld.", "st.")):
                origins.setdefault(used[0], set()).update(*(origins.get(register, ()) for register in used[1:]))
    return {name: tuple(sorted(found)) for name, found in widths.items()}


def _bytes_per_thread(opcode: str, operands: str) -> int:
    if opcode.startswith("cp.async"):
        return int(operands.split(",")[2], 0)
    vector = re.search(r"\.v(\d)\.", opcode)
    bits = int(opcode.rpartition(".")[2].strip("abcdefghijklmnopqrstuvwxyz"))
    return (int(vector[1]) if vector else 1) * bits // 8


def _resource_usage(cubin: bytes) -> str:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [triton.knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout
