"""Registration of operators with torch.library: one schema, one fake kernel, several implementations."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from iir_fast.kernels import selection
from iir_fast.kernels.contract import current_device, full_precision

_library = torch.library.Library("iir_fast", "DEF")

Implementation = Callable[..., Any]
_PLAIN = (Tensor, torch.nn.Parameter)


def deferred(module: str, function: str) -> Implementation:
    """Defer an implementation whose module is imported at its first call: Triton kernels need triton, the rest does
    not."""

    @cache
    def resolve() -> Implementation:
        implementation: Implementation = getattr(import_module(module), function)
        return implementation

    return lambda *arguments: resolve()(*arguments)


@dataclass(frozen=True)
class Operator:
    """A registered operator. Called without a gradient, it is called straight where nothing but the results matters.

    The way through torch's dispatcher and back to Python takes the host as long as a few launches. It is taken while
    compiling, under a dispatch mode, on tensors of other classes, and where a registered gradient is asked for.
    """

    run: Implementation
    """The implementation that is chosen."""
    dispatch: Implementation
    """``torch.ops.iir_fast``'s."""

    def __call__(self, *arguments: Any) -> Any:
        straight = _only_results_matter(arguments) and not _asks_for_gradients(arguments)
        return self.run(*arguments) if straight else self.dispatch(*arguments)


def register(
    name: str,
    signature: str,
    implementations: Mapping[str, Implementation],
    fake: Implementation,
) -> Operator:
    """Define ``iir_fast::name`` for every device.

    ``define`` and ``impl`` instead of ``custom_op``: a third of the overhead per call.

    Args:
        name: the operator's name inside the namespace.
        signature: arguments and results in torch's schema language, e.g. "(Tensor x) -> Tensor".
        implementations: "native" and "triton" -> function on real tensors.
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
    return Operator(run, getattr(torch.ops.iir_fast, name))


def register_gradient(
    name: str, operator: Operator, backward: Implementation, setup_context: Implementation
) -> Implementation:
    """Give ``iir_fast::name`` its gradient; `backward` calls the operator's backward operator.

    The backward operator is differentiable no further: asked for a second derivative it raises.

    Args:
        name: the operator's.
        operator: what `register` returned for it.
        backward: takes a context and the gradients of all results; returns one for each argument, or None.
        setup_context: takes a context, the arguments and the results.

    Returns:
        What calls the operator with its gradient, straight or through the dispatcher as `Operator` says.
    """
    torch.library.register_autograd(f"iir_fast::{name}", backward, setup_context=setup_context, lib=_library)
    register_no_gradient(f"{name}_backward", "is not differentiable twice")

    class Node(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Any) -> Any:
            output = operator.run(*inputs)
            setup_context(ctx, inputs, output)
            return output

        @staticmethod
        def backward(ctx: Any, *gradients: Tensor | None) -> Any:
            return backward(ctx, *gradients)

    Node.__name__ = Node.__qualname__ = f"iir_fast_{name}"
    apply: Implementation = Node.apply

    def call(*arguments: Any) -> Any:
        # Dynamo follows the registered operator, not this node.
        if not _only_results_matter(arguments):
            return operator.dispatch(*arguments)
        return apply(*arguments) if _asks_for_gradients(arguments) else operator.run(*arguments)

    return call


def _only_results_matter(arguments: tuple[Any, ...]) -> bool:
    """Tell whether nobody looks at the call itself: neither a compiler nor a dispatch mode nor a tensor's own class."""
    return not (torch.compiler.is_compiling() or is_in_torch_dispatch_mode()) and all(
        type(each) in _PLAIN for each in arguments if isinstance(each, Tensor)
    )


def _asks_for_gradients(arguments: tuple[Any, ...]) -> bool:
    return torch.is_grad_enabled() and any(isinstance(each, Tensor) and each.requires_grad for each in arguments)


def register_no_gradient(name: str, reason: str) -> None:
    """Make a backward pass through ``iir_fast::name`` raise NotImplementedError in place of a wrong gradient."""

    def backward(ctx: Any, *gradients: Tensor) -> None:
        raise NotImplementedError(f"iir_fast::{name} {reason}.")

    torch.library.register_autograd(f"iir_fast::{name}", backward, lib=_library)
