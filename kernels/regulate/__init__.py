"""regulate: two CAMs of one sample, normalized, thresholded and regulated pixel by pixel.

Per sample and X in {A, B} (all forms are this project's reconstruction, design of iir_fast):
    M_X = (P_X - min P_X) / (max P_X - min P_X)          0 for a constant map
    t_X = sigmoid((1 - tanh r_X) logit(mean_p M_X)), the mean kept 1e-4 away from 0 and 1, for an offset r_X that is
          learned; mean_p M_X without one; or given
    m_X = sigmoid((M_X - t_X) / tau)
    dual = mean_p m_A m_B M_A M_B + (1 - m_A)(1 - m_B)(M_A - M_B)^2
    agreement = mean_p m_A (1 - m_B) + m_B (1 - m_A)

Gradient, written for A, with d, a the incoming gradients of the two terms over P pixels (B by symmetry):
    through the mask:       h = dm_A + d (m_B M_A M_B - (1 - m_B)(M_A - M_B)^2) + a (1 - 2 m_B)
                            z = h m_A (1 - m_A) / tau
    through the threshold:  e = dt_A - sum_p z
    through mean and offset, with w = (1 - tanh r) / 2:
                            k = t (1 - t) 2 w / (mean (1 - mean)), 0 where the mean was kept away, and 1 without offset
                            dr = -4 e t (1 - t) w (1 - w) logit(mean)
    through the map:        q = dM_A + d (m_A m_B M_B + 2 (1 - m_A)(1 - m_B)(M_A - M_B)) + z [+ e k / P if not given]
    through min and max:    dP = q / range, plus sum_p q (M - 1) / range shared among the pixels at the minimum
                            and -sum_p q M / range shared among those at the maximum
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

from iir_fast.kernels import selection
from iir_fast.kernels.contract import accumulation_dtype, check_floating, check_shape, full_precision
from iir_fast.kernels.registration import deferred, register, register_gradient
from iir_fast.kernels.regulate import native, reference
from iir_fast.kernels.regulate.reference import Inputs

TEMPERATURE = 0.1
"""Width of the soft masks, in units of the normalized CAM, unless told otherwise."""


class RegulatedCAMs(NamedTuple):
    """What regulate returns; all float32, or float64 when a CAM is."""

    terms: Tensor
    """[B,2]: the `dual` and the `agreement` regulation, each a mean over the pixels."""
    masks: Tensor
    """[B,2,H,W] in [0,1]: foreground masks of A and B."""
    maps: Tensor
    """[B,2,H,W] in [0,1]: normalized CAMs of A and B."""
    thresholds: Tensor
    """[B,2]: the threshold each mask was cut at."""


def regulate(
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None = None,
    temperature: float = TEMPERATURE,
    *,
    offsets: Tensor | None = None,
) -> RegulatedCAMs:
    """Normalize two CAMs per sample, cut each at its threshold and compare them pixel by pixel.

    A map with range at most 1e-6 of its largest magnitude plus 1e-12 counts as constant. A NaN or inf in a sample's
    CAM gives NaN in that sample's results and gradients, and in no other sample's.

    Args:
        cam_a: [B,H,W], floating, any strides: the label CAM of classifier A.
        cam_b: [B,H,W], floating, any strides: the label CAM of classifier B.
        thresholds: [B,2] in (0,1), floating; None: each normalized CAM's own mean, whose gradient flows, moved by
            `offsets`.
        temperature: tau > 0, the width of the soft masks in units of the normalized CAM.
        offsets: [B,2], floating, in place of thresholds: how far each threshold is moved from the mean, r above. 0
            leaves it there, towards +inf it goes to 0.5, towards -inf as far to the other side. None: nowhere.

    Returns:
        RegulatedCAMs(terms [B,2], masks [B,2,H,W], maps [B,2,H,W], thresholds [B,2]), all differentiable.

    Raises:
        TypeError: a dtype is not accepted.
        ValueError: shapes do not fit, H or W is 0, the temperature is not positive, or thresholds and offsets are both
            given.
    """
    check_floating("regulate", cam_a=cam_a, cam_b=cam_b)
    check_shape("regulate", "cam_a", cam_a, "[B,H,W]", None, None, None)
    check_shape("regulate", "cam_b", cam_b, f"{list(cam_a.shape)}, as cam_a", *cam_a.shape)
    if 0 in cam_a.shape[1:]:
        raise ValueError(f"regulate: cam_a has shape {list(cam_a.shape)}; H and W must be at least 1.")
    for name, tensor in (("thresholds", thresholds), ("offsets", offsets)):
        if tensor is not None:
            check_floating("regulate", **{name: tensor})
            check_shape("regulate", name, tensor, f"[{cam_a.shape[0]},2]", cam_a.shape[0], 2)
    if thresholds is not None and offsets is not None:
        raise ValueError("regulate: thresholds and offsets are both given; accepted is one of the two.")
    if not temperature > 0:
        raise ValueError(f"regulate: temperature is {temperature}; accepted is a number above 0.")
    if selection.calls_reference(native.supports, cam_a, cam_b, thresholds, offsets):
        with full_precision(cam_a.device):
            return RegulatedCAMs(*reference.regulate(cam_a, cam_b, thresholds, offsets, temperature))
    return RegulatedCAMs(*_call(cam_a, cam_b, thresholds, offsets, temperature))


def _fake(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = Inputs(*arguments)
    dtype = accumulation_dtype(inputs.cam_a, inputs.cam_b)
    batch, height, width = inputs.cam_a.shape
    shapes = (batch, 2), (batch, 2, height, width), (batch, 2, height, width), (batch, 2)
    terms, masks, maps, thresholds = (inputs.cam_a.new_empty(shape, dtype=dtype) for shape in shapes)
    return terms, masks, maps, thresholds


def _fake_backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    inputs = Inputs(*arguments[4:])
    cam_a, cam_b = inputs.cam_a, inputs.cam_b
    return cam_a.new_empty(cam_a.shape), cam_b.new_empty(cam_b.shape), gradient_of_cuts(cam_a, inputs.given)


def gradient_of_cuts(cam: Tensor, given: Tensor | None) -> Tensor:
    """Allocate the gradient of given thresholds or offsets; empty, beside a CAM, if there are none."""
    return cam.new_empty(0) if given is None else given.new_empty(given.shape)


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    cam_a, cam_b, thresholds, offsets, ctx.temperature = inputs
    ctx.save_for_backward(cam_a, cam_b, thresholds, offsets)
    ctx.terms_and_masks = tuple((each.shape, each.dtype, each.device) for each in output[:2])
    ctx.set_materialize_grads(False)


def _backward(ctx: Any, *incoming: Tensor | None) -> tuple[Tensor | None, ...]:
    cam_a, cam_b, thresholds, offsets = ctx.saved_tensors
    of_terms_and_masks = (
        torch.zeros(shape, dtype=dtype, device=device) if each is None else each
        for each, (shape, dtype, device) in zip(incoming, ctx.terms_and_masks, strict=False)
    )
    gradients = *of_terms_and_masks, *incoming[2:]
    grad_a, grad_b, grad_cuts = _call_backward(*gradients, cam_a, cam_b, thresholds, offsets, ctx.temperature)
    to_thresholds = None if thresholds is None else grad_cuts
    return grad_a, grad_b, to_thresholds, None if offsets is None else grad_cuts, None


_forward = register(
    "regulate",
    "(Tensor cam_a, Tensor cam_b, Tensor? thresholds, Tensor? offsets, float temperature) "
    "-> (Tensor, Tensor, Tensor, Tensor)",
    {"native": native.forward, "triton": deferred(f"{__name__}.triton", "forward")},
    _fake,
)
_call_backward = register(
    "regulate_backward",
    "(Tensor grad_terms, Tensor grad_masks, Tensor? grad_maps, Tensor? grad_thresholds, Tensor cam_a, Tensor cam_b, "
    "Tensor? thresholds, Tensor? offsets, float temperature) -> (Tensor, Tensor, Tensor)",
    {"native": native.backward, "triton": deferred(f"{__name__}.triton", "backward")},
    _fake_backward,
)
_call = register_gradient("regulate", _forward, _backward, _setup_context)
