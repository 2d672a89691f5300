"""Calls of every operator, forward and backward, on tensors of a given shape: what gets compiled and run.

They are the calls of a training step with mixed precision: features in the dtype of the shape, and weights, CAMs,
masks and descriptors in float32.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from importlib import import_module
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

import iir_fast.kernels  # noqa: F401  (registers the operators)
from iir_fast.kernels.launch import Launch

CLASSES = 12
# Results that are not kept for the backward pass alone, and which ones the backward pass is given.
RESULTS = {"dual_cam": 8, "inter_intra": 3}
# Kernels whose programs take a whole sample, all of whose F is near: what one reads again comes from a cache.
WHOLE = ("dual_cam_forward_kernel", "dual_cam_backward_kernel")
# Results of dual_cam that the cross-entropies and `IIRLoss` read: logits, terms and descriptors.
IN_A_STEP = (0, 2, 6, 7)
SAVED = {"masked_pool": (0, 1), "dual_cam": (1, 3, *range(6, 12)), "inter_intra": (3, 4, 5)}


@dataclass(frozen=True)
class Shape:
    """Features [batch, channels, side, side], their dtype and layout."""

    batch: int
    channels: int
    side: int
    dtype: torch.dtype
    channels_last: bool

    @property
    def dtype_name(self) -> str:
        return {torch.bfloat16: "bf16", torch.float16: "fp16", torch.float32: "fp32"}[self.dtype]

    @property
    def layout(self) -> str:
        return "channels_last" if self.channels_last else "NCHW"

    @property
    def map(self) -> str:
        return f"{self.side}x{self.side}"

    def __str__(self) -> str:
        return f"{self.dtype_name} {self.layout} {self.map} C {self.channels}"


@dataclass(frozen=True)
class Example:
    """One call of an operator's forward function, or of its backward function."""

    operator: str
    inputs: tuple[Any, ...]
    """What the operator takes."""
    gradients: tuple[Tensor | None, ...] = ()
    """Backward: those of its outputs; None of one that nothing depends on."""
    needed: tuple[bool, ...] = ()
    """Backward: which gradients to make, for the operators that ask."""
    option: str = ""
    """What sets the call apart from the usual one."""

    def __str__(self) -> str:
        direction = "backward" if self.gradients else "forward"
        return f"{self.operator} {direction}{self.option and ', ' + self.option}"

    def plan(self) -> list[Launch]:
        """The launches of the Triton implementation; on the meta device nothing is run."""
        launches: list[Launch] = []
        with patch.object(Launch, "__call__", lambda launch: launches.append(launch)):
            self.run()
        return launches

    def run(self) -> tuple[Tensor, ...]:
        """The results of the Triton implementation."""
        room = import_module(f"iir_fast.kernels.{self.operator}.triton")
        if not self.gradients:
            return _tuple(room.forward(*self.inputs))[: RESULTS.get(self.operator)]
        saved = self._results() if self.operator in SAVED else ()
        kept = [saved[number] for number in SAVED.get(self.operator, ())]
        return _tuple(room.backward(*self.gradients, *self.inputs, *kept, *self.needed))

    def expected(self) -> tuple[Tensor | None, ...]:
        """What the float64 reference gives; None for a gradient that is not needed or of an input that is not there."""
        exact = [_exact(value) for value in self.inputs]
        room = import_module(f"iir_fast.kernels.{self.operator}.reference")
        outputs = _tuple(getattr(room, self.operator)(*exact))
        if not self.gradients:
            return tuple(output.detach() for output in outputs)
        leaves = [value for value in exact if isinstance(value, Tensor) and value.requires_grad]
        reached = [number for number, given in enumerate(self.gradients) if given is not None]
        incoming = [self.gradients[number].double() for number in reached]
        found = torch.autograd.grad([outputs[number] for number in reached], leaves, incoming)
        # regulate has one gradient for thresholds and offsets, an empty one where neither is there.
        if self.operator == "regulate":
            return (*found, None)[:3]
        by_input = dict(zip(map(id, leaves), found, strict=True))
        # dual_cam has a gradient for every input that might be there.
        kept = [value for value in exact if id(value) in by_input or (value is None and self.operator == "dual_cam")]
        made = [by_input.get(id(value)) for value in kept]
        if self.needed and not self.needed[0]:
            made[0] = None
        return tuple(made)

    def backward(self, *needed: bool) -> Example:
        """The backward call that belongs to this forward call."""
        outputs = self._results()[: RESULTS.get(self.operator)]
        gradients = tuple(_random(*output.shape, like=output, seed=9) for output in outputs)
        return replace(self, gradients=gradients, needed=needed)

    def _results(self) -> tuple[Tensor, ...]:
        """Run the forward call where its tensors are; float16 as float32, for the kernels of a CPU do not take it."""
        taken = [
            value.float() if isinstance(value, Tensor) and value.dtype == torch.float16 else value
            for value in self.inputs
        ]
        return _tuple(getattr(torch.ops.iir_fast, self.operator)(*taken))

    def of_a_step(self) -> Example:
        """The backward call of dual_cam with the gradients that a training step hands on."""
        gradients = tuple(each if number in IN_A_STEP else None for number, each in enumerate(self.gradients))
        return replace(self, gradients=gradients, option=", ".join(filter(None, (self.option, "of a step"))))


def examples(shape: Shape, device: str = "cpu", classes: int = CLASSES) -> list[Example]:
    """Every call for features of that shape, with every option that changes a kernel.

    On the meta device it takes no memory.
    """
    like = torch.empty(0, device=device)
    batch, channels, side = shape.batch, shape.channels, shape.side
    layout = torch.channels_last if shape.channels_last else torch.contiguous_format
    features, map_a, map_b = (
        _random(batch, channels, side, side, like=like, seed=seed).to(shape.dtype).contiguous(memory_format=layout)
        for seed in (0, 14, 15)
    )
    weights = _random(2, classes, channels, like=like, seed=1)
    labels = (torch.arange(batch) // 2 % classes).to(device)
    cams = _random(batch, 2, side, side, like=like, seed=2).unbind(1)
    thresholds = torch.sigmoid(_random(batch, 2, like=like, seed=3))
    offsets = _random(batch, 2, like=like, seed=8)
    masks = torch.sigmoid(_random(batch, 2, side, side, like=like, seed=4))
    groups = labels.repeat_interleave(2)
    descriptors = _random(2 * batch, channels, like=like, seed=5), _random(2 * batch, channels, like=like, seed=6)

    label_cam = Example("label_cam", (features, weights, labels))
    single = Example("label_cam", (features, weights[:1], labels), option="one classifier")
    regulate = Example("regulate", (*cams, None, None, 0.1))
    given = Example("regulate", (*cams, thresholds, None, 0.1), option="given thresholds")
    learned = Example("regulate", (*cams, None, offsets, 0.1), option="learned thresholds")
    pool = Example("masked_pool", (features, masks))
    similarity = Example("subgroup_similarity", (*descriptors, groups))
    classifiers = weights, _random(2, classes, like=like, seed=10), labels
    offsets_of_maps = _random(2, channels, like=like, seed=11) / channels**0.5, _random(2, like=like, seed=12)
    dual = Example("dual_cam", (features, None, None, *classifiers, *offsets_of_maps, None, torch.float32, 0.5))
    own = Example(
        "dual_cam", (features, map_a, map_b, *classifiers, None, None, None, torch.float32, 1.0), option="own maps"
    )
    regions = _random(batch, 2, channels, like=like, seed=5), _random(batch, 2, channels, like=like, seed=6)
    loss = Example("inter_intra", (_random(batch, 2, like=like, seed=13), *regions, labels, 0, 5.0, 5.0))
    evidence = Example("evidence_map", (features, _random(batch, 1, channels, like=like, seed=7)))
    return [
        label_cam,
        label_cam.backward(True, True),
        replace(label_cam, option="frozen features").backward(False, True),
        single,
        single.backward(True, True),
        regulate,
        regulate.backward(),
        given,
        given.backward(),
        learned,
        learned.backward(),
        pool,
        pool.backward(True, True),
        replace(pool, option="frozen features").backward(False, True),
        dual,
        dual.backward(True, False, True),
        dual.backward(True, False, True).of_a_step(),
        replace(dual, option="frozen features").backward(False, False, True).of_a_step(),
        own,
        own.backward(True, True, True),
        own.backward(True, True, True).of_a_step(),
        similarity,
        similarity.backward(),
        loss,
        loss.backward(),
        evidence,
    ]


def _random(*shape: int, like: Tensor, seed: int = 0) -> Tensor:
    if like.device.type == "meta":
        return torch.empty(shape, device="meta")
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(like.device)


def _exact(value: Any) -> Any:
    return value.double().requires_grad_() if isinstance(value, Tensor) and value.is_floating_point() else value


def _tuple(result: Tensor | tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (result,) if isinstance(result, Tensor) else tuple(result)
