"""Registration of operators with torch.library: one schema, one fake kernel, several implementations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

from iir_fast.kernels import selection
from iir_fast.kernels.contract import current_device, full_precision

_library = torch.library.Library("iir_fast", "DEF")

Implementation = Callable[..., Any]


def deferred(module: str, function: str) -> Implementation:
    """An implementation whose module is imported at its first call: Triton kernels need triton, the rest does not."""

    @cache
    def resolve() -> Implementation:
        implementation: Implementation = getattr(import_module(module), function)
        return implementation

    return lambda *arguments: resolve()(*arguments)


def register(
    name: str,
    signature: str,
    implementations: Mapping[str, Implementation],
    fake: Implementation,
) -> None:
    """Define ``iir_fast::name`` for every device.

    ``define`` and ``impl`` instead of ``custom_op``: a third of the overhead per call.

    Args:
        name: the operator's name inside the namespace.
        signature: arguments and results in torch's schema language, e.g. "(Tensor x) -> Tensor".
        implementations: "host" and "triton" -> function on real tensors.
        fake: the same function on shapes alone.
    """

    def run(*arguments: Any) -> Any:
        device = next(argument.device for argument in arguments if isinstance(argument, Tensor))
        implementation = implementations[selection.choose(device.type).backend]
        # An operator sees an enclosing autocast region: without this its own products would be lowered.
        with full_precision(device), current_device(device):
            return implementation(*arguments)

    _library.define(f"{name}{signature}")
    _library.impl(name, run, "CompositeExplicitAutograd")
    torch.library.register_fake(f"iir_fast::{name}", fake, lib=_library)


def register_gradient(name: str, backward: Implementation, setup_context: Implementation) -> None:
    """Give ``iir_fast::name`` its gradient; `backward` calls the operator's backward operator.

    The backward operator is differentiable no further: asked for a second derivative it raises.
    """
    torch.library.register_autograd(f"iir_fast::{name}", backward, setup_context=setup_context, lib=_library)
    register_no_gradient(f"{name}_backward", "is not differentiable twice")


def register_no_gradient(name: str, reason: str) -> None:
    """Make a backward pass through ``iir_fast::name`` raise NotImplementedError in place of a wrong gradient."""

    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise NotImplementedError(f"iir_fast::{name} {reason}.")

    torch.library.register_autograd(f"iir_fast::{name}", backward, lib=_library)
