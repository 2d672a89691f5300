"""One description of a kernel launch, for whoever runs, compiles, counts or inspects it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeAlias, TypeVar

from torch import Tensor

from iir_fast.kernels.replay import Recording, recording

Arguments = ParamSpec("Arguments")
Outputs = TypeVar("Outputs")
Argument: TypeAlias = "Tensor | int | float | None"
"""Of a kernel at run time."""

MAX_KEPT = 256
"""Kinds of arguments of one function."""


@dataclass(frozen=True)
class Launch:
    """A Triton kernel with everything that decides what it does.

    The launchers of a room build these from tensors of any device, the meta device included, and run them in order;
    tests compile the same ones ahead of time and count their traffic.

    Attributes:
        kernel: a `triton.jit` function.
        grid: number of programs along each axis.
        arguments: the kernel's run-time arguments by name.
        constants: its `tl.constexpr` arguments by name.
        num_warps: warps per program.
        num_stages: depth of software pipelining.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Argument]
    constants: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 2

    @property
    def options(self) -> dict[str, int | bool]:
        """How to compile it. Fused multiply-adds are asked for by name: Triton's own default changes with 3.10."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}

    def __call__(self) -> Any:
        """Run it on the current device, which must be that of its tensors; returns the compiled kernel, if any."""
        return self.kernel[self.grid](**self.arguments, **self.constants, **self.options)


def strides_of(name: str, tensor: Tensor) -> dict[str, int]:
    """Name the strides of a tensor [B,P] or [B,R,P] as a kernel does: "name_sample", "name_map", "name_pixel"."""
    axes = ("sample", "pixel") if tensor.dim() == 2 else ("sample", "map", "pixel")
    return {f"{name}_{axis}": stride for axis, stride in zip(axes, tensor.stride(), strict=True)}


def run(launches: Sequence[Launch]) -> None:
    """Run launches in order on the current device; one without programs is skipped."""
    follower = recording()
    for launch in launches:
        if all(launch.grid):
            compiled = launch()
            if follower is not None:
                follower.note_launch(launch, compiled)


def launched(plan: Callable[Arguments, tuple[Outputs, list[Launch]]]) -> Callable[Arguments, Outputs]:
    """Make of a plan, which allocates outputs and describes the launches that fill them, what returns them filled."""

    def fill(*arguments: Arguments.args, **named: Arguments.kwargs) -> Outputs:
        outputs, launches = plan(*arguments, **named)
        run(launches)
        return outputs

    return recorded(fill)


def recorded(function: Callable[Arguments, Outputs]) -> Callable[Arguments, Outputs]:
    """Make of a function on tensors what does not go through its Python again.

    What it allocates, computes and launches may depend on its arguments' shapes, strides, dtypes and alignment, and on
    what is no tensor among them, not on what the tensors hold. It is followed once for each of these, and what it did
    is done again from then on: on a GPU its Python would take longer than the kernels. Where no code is compiled, in
    Triton's interpreter, it is called every time.
    """
    kept: dict[Any, Callable[[Sequence[Any]], Outputs]] = {}

    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Outputs:
        if named or recording() is not None:
            return function(*arguments, **named)
        key = tuple(map(_key, arguments))
        again = kept.get(key)
        if again is not None:
            return again(arguments)
        with Recording(arguments) as follower:
            outputs = function(*arguments, **named)
        again = follower.replay(outputs)
        if again is not None:
            if len(kept) >= MAX_KEPT:
                kept.clear()
            kept[key] = again
        return outputs

    return call


def _key(value: Any) -> Any:
    """Return what a plan may depend on. Triton's code depends on whether an address is a multiple of 16."""
    if isinstance(value, Tensor):
        return value.shape, value.stride(), value.dtype, value.device, value.data_ptr() % 16
    return tuple(map(_key, value)) if isinstance(value, tuple) else value
