"""regulate on Triton: one launch forward, one backward, one program per sample.

A program reads both CAMs of its sample, with their own strides, and holds them in registers when they have at most
`MAX_HELD` pixels; a larger map is read again, block by block, in every pass. A pass ends in scalars that the
next one needs, summed in a fixed order:

    forward   1. minimum, maximum -> span   2. mean -> threshold, unless given   3. masks, maps, terms
    backward  1. and 2. as forward          3. per map: the sums of its gradient  4. per map: its gradient

For `dual_cam`, CAMs and gradients of masks may come in the parts that several programs made of them, and offsets are
made here of the pooled maps. The letters in the code are those of the room's docstring. The temperature is declared
float64, for Triton takes a float that is not declared as float32.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from iir_fast.kernels.contract import accumulation_dtype
from iir_fast.kernels.launch import Launch, launched, strides_of
from iir_fast.kernels.regulate import gradient_of_cuts
from iir_fast.kernels.regulate.reference import Gradients, Inputs
from iir_fast.kernels.regulate.sample import differentiate_sample, regulate_sample
from iir_fast.kernels.sums import plan_total

# Integers that change with the batch: no variant of a kernel depends on their values.
RUN_TIME = ["parts", "part_stride", "pooled_map"]
MAX_HELD = 1024
LOOP_BLOCK = 512
PIXELS_PER_WARP = 32
MAX_WARPS = 16


class Sources(NamedTuple):
    """What `dual_cam` makes the CAMs of, and the offsets of their thresholds if these are learned."""

    cams: Tensor
    """[S,B,2,H,W], whose sum they are."""
    pooled: Tensor
    """[1,B,C] of one map, [2,B,C] of a map for each classifier."""
    offset_weights: Tensor | None
    """[2,C]"""
    offset_biases: Tensor | None
    """[2]"""


@triton.jit(do_not_specialize=RUN_TIME)
def _regulate_forward_kernel(
    cam_a,
    cam_b,
    given,
    offsets,
    pooled,
    offset_weights,
    offset_biases,
    cams,
    terms,
    masks,
    maps,
    thresholds,
    temperature: tl.float64,
    a_sample,
    a_pixel,
    b_sample,
    b_pixel,
    parts,
    part_stride,
    pooled_map,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
    C: tl.constexpr,
):
    # cam_a, cam_b parts x [B,P], given, offsets [B,2], pooled [1 or 2,B,C], offset_weights [2,C], offset_biases [2]
    # -> cams, masks, maps [B,2,P], terms, thresholds [B,2]
    sample = tl.program_id(0).to(tl.int64)
    if given is not None:
        given += 2 * sample
    if offsets is not None:
        offsets += 2 * sample
    pooled_a, pooled_b = None, None
    if pooled is not None:
        pooled_a = pooled + sample * C
        pooled_b = pooled_a + pooled_map
    if cams is not None:
        cams += 2 * sample * P
    regulate_sample(
        cam_a + sample * a_sample,
        cam_b + sample * b_sample,
        given,
        offsets,
        pooled_a,
        pooled_b,
        offset_weights,
        offset_biases,
        cams,
        terms + 2 * sample,
        masks + 2 * sample * P,
        maps + 2 * sample * P,
        thresholds + 2 * sample,
        temperature,
        a_pixel,
        b_pixel,
        parts,
        part_stride,
        P,
        BLOCK,
        C,
    )


@triton.jit(do_not_specialize=RUN_TIME)
def _regulate_backward_kernel(
    grad_terms,
    grad_masks,
    grad_maps,
    grad_thresholds,
    cam_a,
    cam_b,
    given,
    offsets,
    grad_a,
    grad_b,
    grad_cuts,
    temperature: tl.float64,
    grad_sample,
    masks_sample,
    masks_map,
    masks_pixel,
    maps_sample,
    maps_map,
    maps_pixel,
    a_sample,
    a_pixel,
    b_sample,
    b_pixel,
    parts,
    part_stride,
    P: tl.constexpr,
    BLOCK: tl.constexpr,
):
    # grad_terms, grad_thresholds, given, offsets [B,2], grad_masks parts x [B,2,P], grad_maps [B,2,P], cam_a, cam_b
    # [B,P] -> grad_a, grad_b [B,P], grad_cuts [B,2]
    sample = tl.program_id(0).to(tl.int64)
    if grad_maps is not None:
        grad_maps += sample * maps_sample
    differentiate_sample(
        grad_terms,
        grad_masks + sample * masks_sample,
        grad_maps,
        grad_thresholds,
        cam_a + sample * a_sample,
        cam_b + sample * b_sample,
        given,
        offsets,
        grad_a + sample * grad_sample,
        grad_b + sample * grad_sample,
        grad_cuts,
        sample,
        temperature,
        masks_map,
        masks_pixel,
        maps_map,
        maps_pixel,
        a_pixel,
        b_pixel,
        parts,
        part_stride,
        P,
        BLOCK,
    )


def _launch(
    kernel: Any,
    inputs: Inputs,
    gradients: dict[str, Tensor | None],
    results: dict[str, Tensor | None],
    strides: dict[str, int],
    constants: dict[str, int],
) -> Launch:
    """Make the launch of a kernel that has these arguments besides."""
    # Views unless H and W cannot be walked with one stride; the CAMs are small.
    flat_a, flat_b = inputs.cam_a.flatten(1), inputs.cam_b.flatten(1)
    given, offsets = (None if each is None else each.contiguous() for each in (inputs.thresholds, inputs.offsets))
    pixels = flat_a.shape[1]
    block = triton.next_power_of_2(pixels) if pixels <= MAX_HELD else LOOP_BLOCK
    return Launch(
        kernel,
        (len(flat_a),),
        {
            **gradients,
            **{"cam_a": flat_a, "cam_b": flat_b, "given": given, "offsets": offsets},
            **results,
            "temperature": inputs.temperature,
            **strides_of("a", flat_a),
            **strides_of("b", flat_b),
            **strides,
        },
        {"P": pixels, "BLOCK": block, **constants},
        num_warps=max(1, min(MAX_WARPS, block // PIXELS_PER_WARP)),
    )


def plan_forward(*arguments: Any) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], list[Launch]]:
    """Allocate the results of `forward` and describe the launch that fills them."""
    results, launch = _plan_forward(Inputs(*arguments), {}, {"parts": 1, "part_stride": 0, "pooled_map": 0}, 1)
    return results, [launch]


def plan_from_sources(
    sources: Sources, thresholds: Tensor | None, temperature: float
) -> tuple[tuple[Tensor, ...], list[Launch]]:
    """Plan the same from parts; first come the CAMs [B,2,H,W], and the offsets [B,2], empty if there are none."""
    parts, channels, launches = sources.cams, 1, list[Launch]()
    _, batch, _, height, width = parts.shape
    written, offsets = None, None
    if len(parts) == 1:
        cams = parts[0]
    elif height * width > MAX_HELD:
        cams, launches = plan_total(parts)
        parts = cams.unsqueeze(0)
    else:
        cams = written = parts.new_empty(parts.shape[1:])
    # All parts belong to what the launch is given.
    more = {"cam_a": parts[:, :, 0], "cam_b": parts[:, :, 1], "cams": written}
    if sources.offset_weights is not None and sources.offset_biases is not None:
        channels, offsets = sources.pooled.shape[2], parts.new_empty(batch, 2)
        more |= {
            "pooled": sources.pooled.contiguous(),
            "offset_weights": sources.offset_weights.contiguous(),
            "offset_biases": sources.offset_biases.contiguous(),
        }
    strides = {
        "parts": len(parts),
        "part_stride": parts.stride(0),
        "pooled_map": 0 if len(sources.pooled) == 1 else batch * channels,
    }
    inputs = Inputs(parts[0, :, 0], parts[0, :, 1], thresholds, offsets, temperature)
    results, launch = _plan_forward(inputs, more, strides, channels)
    return (cams, parts.new_empty(0) if offsets is None else offsets, *results), [*launches, launch]


def _plan_forward(
    inputs: Inputs, more: dict[str, Tensor | None], strides: dict[str, int], channels: int
) -> tuple[tuple[Tensor, Tensor, Tensor, Tensor], Launch]:
    batch, height, width = inputs.cam_a.shape
    like = inputs.cam_a.new_empty(0, dtype=accumulation_dtype(inputs.cam_a, inputs.cam_b))
    terms, cuts = like.new_empty(batch, 2), like.new_empty(batch, 2)
    masks, maps = (like.new_empty(batch, 2, height, width) for _ in range(2))
    results: dict[str, Tensor | None] = dict.fromkeys(("pooled", "offset_weights", "offset_biases", "cams"))
    results |= {**more, "terms": terms, "masks": masks, "maps": maps, "thresholds": cuts}
    launch = _launch(_regulate_forward_kernel, inputs, {}, results, strides, {"C": channels})
    return (terms, masks, maps, cuts), launch


def plan_backward(*arguments: Any) -> tuple[tuple[Tensor, Tensor, Tensor], list[Launch]]:
    """Plan the same for `backward`."""
    incoming, inputs = Gradients(*arguments[:4]), Inputs(*arguments[4:])
    grad_a, grad_b = (cam.new_empty(cam.shape) for cam in (inputs.cam_a, inputs.cam_b))
    incoming = incoming._replace(masks=incoming.masks.unsqueeze(0))
    grad_cuts, launch = _plan_backward(incoming, inputs, grad_a, grad_b)
    return (grad_a, grad_b, grad_cuts), [launch]


def plan_backward_of_both(*arguments: Any) -> tuple[tuple[Tensor, Tensor], list[Launch]]:
    """Plan the same with one tensor [B,2,H,W] for both CAMs' gradients, in the dtype of the first; that of the masks
    [S,B,2,H,W] comes in parts, whose sum it is."""
    incoming, inputs = Gradients(*arguments[:4]), Inputs(*arguments[4:])
    cam_a, launches = inputs.cam_a, list[Launch]()
    if len(incoming.masks) > 1 and math.prod(cam_a.shape[1:]) > MAX_HELD:
        total, launches = plan_total(incoming.masks)
        incoming = incoming._replace(masks=total.unsqueeze(0))
    grad_cams = cam_a.new_empty((len(cam_a), 2, *cam_a.shape[1:]))
    grad_cuts, launch = _plan_backward(incoming, inputs, *grad_cams.unbind(1))
    return (grad_cams, grad_cuts), [*launches, launch]


def _plan_backward(incoming: Gradients, inputs: Inputs, grad_a: Tensor, grad_b: Tensor) -> tuple[Tensor, Launch]:
    grad_cuts = gradient_of_cuts(inputs.cam_a, inputs.given)
    flat_masks = incoming.masks.flatten(3)
    flat_maps = None if incoming.maps is None else incoming.maps.flatten(2)
    gradients = {
        "grad_terms": incoming.terms.contiguous(),
        "grad_masks": flat_masks,
        "grad_maps": flat_maps,
        "grad_thresholds": None if incoming.thresholds is None else incoming.thresholds.contiguous(),
    }
    results: dict[str, Tensor | None] = {"grad_a": grad_a, "grad_b": grad_b, "grad_cuts": grad_cuts}
    strides = {
        "grad_sample": grad_a.stride(0),
        **strides_of("masks", flat_masks[0]),
        # Strides of maps that are not there are of no use.
        **strides_of("maps", flat_masks[0] if flat_maps is None else flat_maps),
        "parts": len(flat_masks),
        "part_stride": flat_masks.stride(0),
    }
    return grad_cuts, _launch(_regulate_backward_kernel, inputs, gradients, results, strides, {})


forward = launched(plan_forward)
backward = launched(plan_backward)
backward_of_both = launched(plan_backward_of_both)
