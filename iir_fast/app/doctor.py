"""What a machine runs the operators on, and whether they are right there."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from iir_fast import functional
from iir_fast.app.tables import tabulate
from iir_fast.kernels import backend, native
from iir_fast.kernels.selection import choose

if TYPE_CHECKING:
    from rich.table import Table

Shape = tuple[int, int, int, int]
# Odd sizes, and what a ResNet-50 at stride 16 gives.
SMALL: Shape = (5, 33, 5, 9)
REALISTIC: Shape = (16, 2048, 14, 14)
TOLERANCE = 1e-4
"""Of float32 sums over thousands of terms, relative to the largest magnitude; a gradient may be rounded once more."""


@dataclass(frozen=True)
class Check:
    """One operator, called twice on one device and compared with the float64 reference there.

    Attributes:
        operator: its name.
        setting: shape [B,C,H,W] of the features, dtype of every floating argument, NHWC if in channels_last.
        results: largest error of a result, relative to the largest magnitude of that result.
        gradients: the same of the gradients; None where there are none.
        fault: what is wrong, in words; empty if nothing is.
    """

    operator: str
    setting: str
    results: float | None = None
    gradients: float | None = None
    fault: str = ""


def describe() -> list[str]:
    """Describe versions, devices, and for each kind of device the implementation it runs and why."""
    lines = [
        f"iir-fast {version('iir-fast')}, Python {platform.python_version()}",
        f"torch {torch.__version__}, triton {_triton_version()}",
        f"cpu: {platform.machine()}, {torch.get_num_threads()} threads, native kernels {native.describe()}",
    ]
    for index in range(torch.cuda.device_count()):
        found = torch.cuda.get_device_properties(index)
        architecture = getattr(found, "gcnArchName", "") if torch.version.hip else f"sm_{found.major}{found.minor}"
        lines.append(f"cuda:{index}: {found.name}, {architecture}, {found.total_memory / 2**30:.0f} GiB")
    if not torch.cuda.is_available():
        lines.append("cuda: torch finds no CUDA or ROCm device")
    for kind in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
        try:
            chosen, reason = choose(kind)
            lines.append(f"operators on {kind} tensors run on the {chosen} backend: {reason}")
        except RuntimeError as error:
            lines.append(f"operators on {kind} tensors cannot run: {error}")
    return lines


def examine(device: torch.device) -> Iterator[Check]:
    """Check every operator on a device, forward and backward, with the backend that is chosen there."""
    for shape, dtype in ((SMALL, torch.float32), (SMALL, torch.float16), (REALISTIC, torch.bfloat16)):
        setting = f"{'x'.join(map(str, shape))} {str(dtype).removeprefix('torch.')}"
        try:
            for operator, call, arguments in _calls(shape, dtype, device):
                yield _check(Check(operator, setting), call, arguments)
                if arguments[0].dim() == 4:
                    arguments[0] = arguments[0].contiguous(memory_format=torch.channels_last)
                    yield _check(Check(operator, f"{setting} NHWC"), call, arguments)
        except Exception as error:  # a GPU refuses everything once a kernel has touched what it must not
            yield Check("tensors", setting, fault=f"{type(error).__name__}: {error}")


def tabulate_checks(checks: Iterable[Check], device: torch.device) -> Table:
    """Make one row per check."""
    rows = []
    for check in checks:
        errors = ("-" if error is None else f"{error:.1e}" for error in (check.results, check.gradients))
        rows.append((check.operator, check.setting, *errors, "FAULT" if check.fault else "ok"))
    title = f"operators on {device} against the float64 reference: relative errors"
    return tabulate(("operator", "features", "results", "gradients", ""), rows, title, text_columns=5)


Call = Callable[..., Any]


def _calls(shape: Shape, dtype: torch.dtype, device: torch.device) -> list[tuple[str, Call, list[Tensor]]]:
    """List every operator with its floating arguments."""
    batch, channels, height, width = shape
    generator = torch.Generator().manual_seed(0)

    def random(*size: int) -> Tensor:
        return torch.randn(size, generator=generator).to(device, dtype)

    features = random(*shape)
    labels = torch.arange(batch, device=device) // 2
    weights = random(2, batch, channels)
    cams = random(2, batch, height, width)
    masks = torch.sigmoid(random(batch, 2, height, width))
    foreground, background = random(2, 2 * batch, channels)
    groups = labels.repeat_interleave(2)
    return [
        ("label_cam", lambda f, w: functional.label_cam(f, w, labels), [features, weights]),
        ("regulate", functional.regulate, list(cams)),
        ("masked_pool", functional.masked_pool, [features, masks]),
        ("subgroup_similarity", lambda f, g: functional.subgroup_similarity(f, g, groups), [foreground, background]),
        ("evidence_map", torch.no_grad()(functional.evidence_map), [features, random(batch, 1, channels)]),
    ]


def _check(check: Check, call: Call, arguments: list[Tensor]) -> Check:
    try:
        return _compare(check, call, arguments)
    except Exception as error:  # whatever a compiler or a driver may raise is what the user wants to see
        return replace(check, fault=f"{type(error).__name__}: {error}")


def _compare(check: Check, call: Call, arguments: list[Tensor]) -> Check:
    with backend("reference"):
        exact_results, exact_gradients = _run(call, [argument.double() for argument in arguments])
    results, gradients = _run(call, arguments)
    again = _run(call, arguments)
    # A GPU tells of a kernel's fault when its results are looked at, at the earliest.
    rounding = max((torch.finfo(gradient.dtype).eps for gradient in gradients), default=0.0)
    worst, worst_gradient = _worst(results, exact_results), _worst(gradients, exact_gradients)
    same = all(torch.equal(one, other) for one, other in zip(results + gradients, again[0] + again[1], strict=True))
    fault = "" if same else "two runs gave different bits"
    if not (worst <= TOLERANCE and worst_gradient <= TOLERANCE + rounding):
        fault = f"the error is above {TOLERANCE:.0e}, or above that and one rounding for a gradient"
    return replace(check, results=worst, gradients=worst_gradient if gradients else None, fault=fault)


def _run(call: Call, arguments: list[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
    """Compute results, and the gradients of their sum under fixed weights."""
    leaves = [argument.detach().requires_grad_() for argument in arguments]
    results = call(*leaves)
    results = [results] if isinstance(results, Tensor) else list(results)
    if not results[0].requires_grad:
        return results, []
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(result.shape, generator=generator).to(result) for result in results]
    return [result.detach() for result in results], list(torch.autograd.grad(results, leaves, weights))


def _worst(actual: list[Tensor], exact: list[Tensor]) -> float:
    """Find the largest error relative to the largest magnitude; NaN if any value is."""
    errors = [(one.double() - other).abs().max() / other.abs().max() for one, other in zip(actual, exact, strict=True)]
    return float(torch.stack(errors).max()) if errors else 0.0


def _triton_version() -> str:
    """Ask the module, not the package: a ROCm build of torch brings one by another name."""
    try:
        import triton
    except ImportError as error:
        return f"cannot be imported ({error})"
    return str(triton.__version__)
