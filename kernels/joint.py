"""One gradient of the features for `label_cam` and `masked_pool` together.

Both read the same features, so each owes them a gradient: written apart and added by autograd that is two writes, two
reads and a third write of something as large as the features. Both are sums of a few outer products of a vector over
channels and a map over pixels, and pooling comes after the label CAMs that make its masks. So `joint_label_cam` hands
the features on; `joint_masked_pool`, given these, leaves its vectors and maps with the node they came from instead of
writing a gradient; and that node, whose backward pass comes after all of its users', writes the sum of all products
once. Whatever else the handed-on features are used for is added as usual.

Where the compiled host kernels do not serve, the features are handed on as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from iir_fast.kernels import native, selection
from iir_fast.kernels.contract import full_precision
from iir_fast.kernels.label_cam import LabelCAMs, check_arguments, label_cam
from iir_fast.kernels.label_cam.native import MOST_CLASSIFIERS
from iir_fast.kernels.label_cam.native import factors as label_cam_factors
from iir_fast.kernels.masked_pool import RegionDescriptors, masked_pool
from iir_fast.kernels.masked_pool import check_arguments as check_pooling
from iir_fast.kernels.masked_pool.native import MOST_MASKS, per_mass
from iir_fast.kernels.masked_pool.native import factors as masked_pool_factors


class _Left:
    """What poolings have left with the node of the label CAMs, apart for each backward pass.

    A backward pass that asks for no gradient of the features leaves factors behind that no later one must find.
    """

    def __init__(self) -> None:
        self._of_passes: dict[int, list[native.Factors]] = {}

    def put(self, factors: native.Factors) -> None:
        self._of_passes.setdefault(torch._C._current_graph_task_id(), []).append(factors)

    def take(self) -> list[native.Factors]:
        return self._of_passes.pop(torch._C._current_graph_task_id(), [])


class _LabelCAM(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, features: Tensor, weights: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        ctx.save_for_backward(features, weights, labels)
        ctx.set_materialize_grads(False)
        ctx.left = _Left()
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
                grad_features = _write(features, [own, *ctx.left.take()])
            if grad_handed_on is not None:
                grad_features += grad_handed_on
        if ctx.needs_input_grad[1]:
            arguments = grad_cams, grad_pooled, features, weights, labels
            grad_weights = torch.ops.iir_fast.label_cam_backward(*arguments, False, True)[1]
        return grad_features, grad_weights, None


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
                ctx.left.put(masked_pool_factors(u, v, masks))
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


def joint_label_cam(features: Tensor, weights: Tensor, labels: Tensor) -> tuple[LabelCAMs, Tensor]:
    """`label_cam`, and the features handed on to `joint_masked_pool`.

    Args:
        features, weights, labels: as in `label_cam`.

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


def joint_masked_pool(features: Tensor, masks: Tensor) -> RegionDescriptors:
    """`masked_pool`, without a gradient of its own of features that `joint_label_cam` handed on.

    Args:
        features, masks: as in `masked_pool`.

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
