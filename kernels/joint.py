"""One gradient of the features, and one of the classifiers' weights, for all that a training step does with them.

`label_cam` and `masked_pool` read the same features, so each owes them a gradient: written apart and added by
autograd that is two writes, two reads and a third write of something as large as the features. Both are sums of a few
outer products of a vector over channels and a map over pixels, and pooling comes after the label CAMs that make its
masks. So `joint_label_cam` hands the features on; `joint_masked_pool`, given these, leaves its vectors and maps with
the node they came from instead of writing a gradient; and that node, whose backward pass comes after all of its
users', writes the sum of all products once. Whatever else the handed-on features are used for is added as usual.

In the same way `joint_logits`, whose input is the node's pooled features, leaves the two factors of its gradient of the
weights there: the node multiplies them and adds the rows of the label CAMs to the product.

Where the compiled host kernels do not serve, the features are handed on as they are.
"""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable

from iir_fast.kernels import native, selection
from iir_fast.kernels.contract import full_precision
from iir_fast.kernels.label_cam import LabelCAMs, check_arguments, label_cam
from iir_fast.kernels.label_cam.native import MOST_CLASSIFIERS, add_weight_gradient
from iir_fast.kernels.label_cam.native import factors as label_cam_factors
from iir_fast.kernels.masked_pool import RegionDescriptors, masked_pool
from iir_fast.kernels.masked_pool import check_arguments as check_pooling
from iir_fast.kernels.masked_pool.native import MOST_MASKS, per_mass
from iir_fast.kernels.masked_pool.native import factors as masked_pool_factors

Left = TypeVar("Left")


class _Shelf(Generic[Left]):
    """What users of the node of the label CAMs have left there, apart for each backward pass.

    A backward pass that does not reach the node leaves something behind that no later one must find.
    """

    def __init__(self) -> None:
        self._of_passes: dict[int, list[Left]] = {}

    def put(self, left: Left) -> None:
        self._of_passes.setdefault(torch._C._current_graph_task_id(), []).append(left)

    def take(self) -> list[Left]:
        return self._of_passes.pop(torch._C._current_graph_task_id(), [])


class _Left:
    """The node's shelves, and whose weights it has."""

    def __init__(self, weights: Tensor) -> None:
        self.weights = weights
        self.by_poolings: _Shelf[native.Factors] = _Shelf()
        self.by_logits: _Shelf[tuple[Tensor, Tensor]] = _Shelf()


class _LabelCAM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(features, weights, labels)
        ctx.set_materialize_grads(False)
        ctx.left = _Left(weights)
        cams, pooled = torch.ops.iir_fast.label_cam(features, weights, labels)
        return cams, pooled, features.view_as(features)

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, grad_cams: Tensor | None, grad_pooled: Tensor | None, grad_handed_on: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        features, weights, labels = ctx.saved_tensors
        batch, channels, height, width = features.shape
        if grad_cams is None:
            grad_cams = torch.zeros(batch, len(weights), height, width)
        if grad_pooled is None:
            grad_pooled = torch.zeros(batch, channels)
        grad_features = grad_weights = None
        if ctx.needs_input_grad[0]:
            with full_precision(features.device):
                own = label_cam_factors(grad_cams.flatten(2), grad_pooled, weights, labels)
                grad_features = _write(features, [own, *ctx.left.by_poolings.take()])
            if grad_handed_on is not None:
                grad_features += grad_handed_on
        if ctx.needs_input_grad[1]:
            with full_precision(features.device):
                sums = _multiply(weights, ctx.left.by_logits.take())
                grad_weights = add_weight_gradient(sums, grad_cams.flatten(2), features, labels).to(weights.dtype)
        return grad_features, grad_weights, None


class _Logits(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, pooled: Tensor, weights: Tensor, biases: Tensor, left: _Left) -> Tensor:
        ctx.save_for_backward(pooled, weights)
        ctx.left = left
        return F.linear(pooled.to(weights.dtype), weights.flatten(0, 1), biases.flatten())

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_logits: Tensor) -> tuple[Tensor | None, ...]:
        pooled, weights = ctx.saved_tensors
        grad_logits = grad_logits.to(weights.dtype)
        if ctx.needs_input_grad[1]:
            ctx.left.by_logits.put((grad_logits, pooled))
        grad_biases = grad_logits.sum(0).view(weights.shape[:2]) if ctx.needs_input_grad[2] else None
        # Asked for or not, this is what brings the backward pass to the node that multiplies the factors.
        return (grad_logits @ weights.flatten(0, 1)).to(pooled.dtype), None, grad_biases, None


class _MaskedPool(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, masks: Tensor, left: _Left) -> tuple[Tensor, Tensor]:
        foreground, background = torch.ops.iir_fast.masked_pool(features, masks)
        ctx.save_for_backward(features, masks, foreground, background)
        ctx.left = left
        return foreground, background

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad_foreground: Tensor, grad_background: Tensor) -> tuple[Tensor | None, ...]:
        features, masks, foreground, background = ctx.saved_tensors
        if ctx.needs_input_grad[0]:
            with full_precision(features.device):
                u, v = per_mass(grad_foreground, grad_background, masks)
                ctx.left.by_poolings.put(masked_pool_factors(u, v, masks))
        grad_masks = None
        if ctx.needs_input_grad[1]:
            arguments = grad_foreground, grad_background, features, masks, foreground, background
            grad_masks = torch.ops.iir_fast.masked_pool_backward(*arguments, False, True)[1]
        return None, grad_masks, None


def _write(features: Tensor, factors: list[native.Factors]) -> Tensor:
    """The sum of all products, written once if they are few."""
    per_channel = torch.cat([each.per_channel.float() for each in factors], dim=1)
    per_pixel = torch.cat([each.per_pixel.float() for each in factors], dim=1)
    added = torch.stack([each.added.float() for each in factors]).sum(0)
    gradient = native.products(features, per_channel[:, : native.MOST_TERMS], per_pixel[:, : native.MOST_TERMS], added)
    for start in range(native.MOST_TERMS, per_channel.shape[1], native.MOST_TERMS):
        chunk = slice(start, start + native.MOST_TERMS)
        gradient += native.products(features, per_channel[:, chunk], per_pixel[:, chunk], torch.zeros_like(added))
    return gradient


def _multiply(weights: Tensor, factors: list[tuple[Tensor, Tensor]]) -> Tensor:
    """The gradient that logits owe the weights [R,K,C], float32: grad_logits [B,R*K] times pooled [B,C], summed."""
    product = native.uninitialized(torch.empty(weights.shape))
    flat = product.flatten(0, 1)
    if not factors:
        return product.zero_()
    for number, (grad_logits, pooled) in enumerate(factors):
        grad_logits, pooled = grad_logits.float().T, pooled.float()
        torch.addmm(flat, grad_logits, pooled, beta=min(number, 1), out=flat)
    return product


def joint_label_cam(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[LabelCAMs, Tensor]:
    """`label_cam`, and the features handed on to `joint_masked_pool`.

    Args:
        features: [B,C,H,W], floating, any strides.
        weights: [R,K,C], floating.
        labels: int64 [B], each in [0,K).

    Returns:
        LabelCAMs, and [B,C,H,W]: the features again, a view of them.

    Raises:
        TypeError, ValueError, IndexError: as `label_cam`.
    """
    check_arguments(features, weights, labels)
    serves = (
        torch.is_grad_enabled()
        and features.requires_grad
        and not torch.compiler.is_compiling()
        and features.device.type == "cpu"
        and not selection.is_reference_forced()
        and selection.choose("cpu").backend == "host"
        and native.serves(features, weights)
        and len(weights) <= MOST_CLASSIFIERS
    )
    if not serves:
        return label_cam(features, weights, labels), features
    cams, pooled, handed_on = _LabelCAM.apply(features, weights, labels)
    return LabelCAMs(cams, pooled), handed_on


def joint_logits(pooled: Tensor, weights: Tensor, biases: Tensor) -> Tensor:
    """Logits of all classifiers, without a gradient of its own of weights that `joint_label_cam` was given too.

    Args:
        pooled: [B,C], floating; from `joint_label_cam`, or any other.
        weights: [R,K,C].
        biases: [R,K], in the dtype of the weights.

    Returns:
        [B,R*K], in the dtype of the weights or that of autocast.
    """
    left = None if torch.compiler.is_compiling() else getattr(pooled.grad_fn, "left", None)
    if not isinstance(left, _Left) or left.weights is not weights:
        return F.linear(pooled.to(weights.dtype), weights.flatten(0, 1), biases.flatten())
    logits: Tensor = _Logits.apply(pooled, weights, biases, left)
    return logits


def joint_masked_pool(features: Tensor, masks: Tensor) -> RegionDescriptors:
    """`masked_pool`, without a gradient of its own of features that `joint_label_cam` handed on.

    Args:
        features: [B,C,H,W], floating, any strides; what `joint_label_cam` handed on, or any other.
        masks: [B,R,H,W], floating, in [0,1].

    Returns:
        RegionDescriptors.

    Raises:
        TypeError, ValueError: as `masked_pool`.
    """
    left = None if torch.compiler.is_compiling() else getattr(features.grad_fn, "left", None)
    if not isinstance(left, _Left) or masks.dtype == torch.float64 or masks.dim() != 4 or masks.shape[1] > MOST_MASKS:
        return masked_pool(features, masks)
    check_pooling(features, masks)
    return RegionDescriptors(*_MaskedPool.apply(features, masks, left))
