"""What a CUDA graph asks of a step: nothing that it does depends on what its tensors hold."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any
from unittest.mock import patch

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode, _disable_current_modes
from torch.utils._pytree import tree_leaves

from iir_fast import DualCAMHead, IIRLoss
from iir_fast.kernels.launch import Launch

BATCH, CLASSES, CHANNELS, SIDE = 4, 5, 17, 6
# One class alone, all the same, two pairs, all different: what a loss of pairs might look at.
LABELS = [[0, 0, 1, 2], [3, 3, 3, 3], [4, 1, 4, 1], [0, 1, 2, 3]]


class _Calls(TorchDispatchMode):
    """What torch is asked for, and of what size that is."""

    def __init__(self, found: list[Any]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        results = func(*args, **(kwargs or {}))
        self.found.append((str(func), [_size(each) for each in tree_leaves(results)]))
        return results


def _size(value: Any) -> Any:
    return (value.shape, value.stride(), value.dtype) if isinstance(value, Tensor) else type(value)


def done_in(step: Callable[[], object], compiled: bool) -> list[Any]:
    """Launches and calls of torch, in their order, with everything about them but what tensors hold.

    Of a compiled step the launches alone: under a dispatch mode it would not be what runs.
    """
    found: list[Any] = []
    call = Launch.__call__

    def launch(self: Launch) -> None:
        given = [(name, _size(each) if isinstance(each, Tensor) else each) for name, each in self.arguments.items()]
        found.append((self.kernel.fn.__name__, self.grid, given, dict(self.constants), self.options))
        # What the interpreter does itself is not the step's.
        with _disable_current_modes():
            call(self)

    with patch.object(Launch, "__call__", launch), nullcontext() if compiled else _Calls(found):
        step()
    return found


def step_on(head: DualCAMHead, seed: int, labels: list[int], compiled: bool) -> Callable[[], object]:
    features = torch.randn(BATCH, CHANNELS, SIDE, SIDE, generator=torch.Generator().manual_seed(seed)).requires_grad_()
    given, regulation = torch.tensor(labels), IIRLoss()
    torch._dynamo.reset()

    def loss() -> Tensor:
        out = head(features, given)
        return F.cross_entropy(out.logits_a, given) + F.cross_entropy(out.logits_b, given) + regulation(out)

    run = torch.compile(loss, fullgraph=True, backend="aot_eager") if compiled else loss
    return lambda: torch.autograd.grad(run(), [features, *head.parameters()])


@pytest.mark.parametrize("hidden", [None, 6])
@pytest.mark.parametrize("compiled", [False, True], ids=["eager", "fullgraph"])
def test_a_step_does_the_same_on_other_data(hidden, compiled):
    head = DualCAMHead(CHANNELS, CLASSES, hidden)
    steps = [step_on(head, seed, labels, compiled) for seed, labels in enumerate(LABELS)]
    # On a GPU labels are not looked at.
    with patch("iir_fast.kernels.label_cam.check_range", lambda *arguments: None):
        first, *others = (done_in(step, compiled) for step in steps)
    assert len([each for each in first if each[0].endswith("_kernel")]) >= 10
    assert not any("_local_scalar_dense" in str(each[0]) for each in first)
    assert all(other == first for other in others)
