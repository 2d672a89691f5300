"""One description of a kernel launch, for whoever runs, compiles, counts or inspects it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ParamSpec, TypeVar

from torch import Tensor

Arguments = ParamSpec("Arguments")
Outputs = TypeVar("Outputs")


@dataclass(frozen=True)
class Launch:
    """A Triton kernel with everything that decides what it does.

    The launchers of a room build these from tensors of any device, the meta device included, and run them in order;
    tests compile the same ones ahead of time and count their traffic.

    Attributes:
        kernel: a `triton.jit` function.
        grid: number of programs along each axis.
        arguments: the kernel's run-time arguments by name, in its order: tensors, integers, floats.
        constants: its `tl.constexpr` arguments by name.
        num_warps: warps per program.
        num_stages: depth of software pipelining.
    """

    kernel: Any
    grid: tuple[int, ...]
    arguments: Mapping[str, Tensor | int | float | None]
    constants: Mapping[str, Any] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 2

    @property
    def options(self) -> dict[str, int | bool]:
        """How to compile it. Fused multiply-adds are asked for by name: Triton's own default changes with 3.10."""
        return {"num_warps": self.num_warps, "num_stages": self.num_stages, "enable_fp_fusion": True}

    def __call__(self) -> None:
        """Run it on the current device, which must be that of its tensors."""
        self.kernel[self.grid](**self.arguments, **self.constants, **self.options)


def run(launches: Sequence[Launch]) -> None:
    """Run launches in order on the current device; one without programs is skipped."""
    for launch in launches:
        if all(launch.grid):
            launch()


def launched(plan: Callable[Arguments, tuple[Outputs, list[Launch]]]) -> Callable[Arguments, Outputs]:
    """Make of a plan, which allocates outputs and describes the launches that fill them, what returns them filled."""

    def call(*arguments: Arguments.args, **named: Arguments.kwargs) -> Outputs:
        outputs, launches = plan(*arguments, **named)
        run(launches)
        return outputs

    return call
