"""regulate on the compiled host kernels: one pass over the CAMs of each sample each way."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import FLAT_ABSOLUTE, FLAT_RELATIVE, MEAN_MARGIN, is_fake
from iir_fast.kernels.regulate import host


class _Regulation(ctypes.Structure):
    """`Regulation` in native.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("cams", "given", "offsets")),
        *((name, ctypes.c_float) for name in ("temperature", "flat_relative", "flat_absolute", "mean_margin")),
        *((name, ctypes.c_long) for name in ("hard", "samples", "pixels")),
        *((name, ctypes.c_void_p) for name in ("terms", "masks", "maps", "thresholds")),
        *((name, ctypes.c_void_p) for name in ("grad_terms", "grad_masks", "grad_maps", "grad_thresholds")),
        *((name, ctypes.c_void_p) for name in ("grad_cams", "grad_cuts")),
    )


def _serves(*tensors: Tensor | None) -> bool:
    return native.serves_small(*(tensor for tensor in tensors if tensor is not None))


def _run(
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    offsets: Tensor | None,
    temperature: float,
    hard: bool,
    backward: bool,
    /,
    **others: Tensor | None,
) -> None:
    """`others` are the outputs and, backward, the gradients, by their names in native.h."""
    # These are referred to until the call returns.
    cams = torch.stack((cam_a.float(), cam_b.float()), dim=1).contiguous()
    given, moved = (None if each is None else each.float().contiguous() for each in (thresholds, offsets))
    others = {name: None if tensor is None else tensor.contiguous() for name, tensor in others.items()}
    work = _Regulation(
        cams=native.address(cams),
        given=native.address(given),
        offsets=native.address(moved),
        temperature=temperature,
        flat_relative=FLAT_RELATIVE,
        flat_absolute=FLAT_ABSOLUTE,
        mean_margin=MEAN_MARGIN,
        hard=hard,
        samples=len(cams),
        pixels=cams[0, 0].numel(),
        **{name: native.address(tensor) for name, tensor in others.items()},
    )
    kernels = native.kernels()
    assert kernels is not None
    if not is_fake(cams):
        kernels.call("iir_fast_regulate", work, backward, threads=native.threads_for(cams.nbytes))


def forward(
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    offsets: Tensor | None,
    temperature: float,
    hard: bool,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if not _serves(cam_a, cam_b, thresholds, offsets):
        return host.forward(cam_a, cam_b, thresholds, offsets, temperature, hard)
    batch = len(cam_a)
    terms, cuts = torch.empty(batch, 2), torch.empty(batch, 2)
    masks, maps = (torch.empty(batch, 2, *cam_a.shape[1:]) for _ in range(2))
    outputs = {"terms": terms, "masks": masks, "maps": maps, "thresholds": cuts}
    _run(cam_a, cam_b, thresholds, offsets, temperature, hard, False, **outputs)
    return terms, masks, maps, cuts


def backward_of_both(
    grad_terms: Tensor,
    grad_masks: Tensor,
    grad_maps: Tensor | None,
    grad_thresholds: Tensor | None,
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    offsets: Tensor | None,
    temperature: float,
    hard: bool,
) -> tuple[Tensor, Tensor]:
    """Gradients of both CAMs [B,2,H,W], float32 or float64, and of what was given of thresholds and offsets."""
    gradients = grad_terms, grad_masks, grad_maps, grad_thresholds
    if not _serves(cam_a, cam_b, thresholds, offsets):
        return host.backward_of_both(*gradients, cam_a, cam_b, thresholds, offsets, temperature, hard)
    grad_cams = torch.empty(len(cam_a), 2, *cam_a.shape[1:])
    given = offsets if thresholds is None else thresholds
    grad_cuts = None if given is None else torch.empty(given.shape)
    names = "grad_terms", "grad_masks", "grad_maps", "grad_thresholds"
    grad_maps = torch.zeros(grad_cams.shape) if grad_maps is None else grad_maps
    grad_thresholds = torch.zeros(len(cam_a), 2) if grad_thresholds is None else grad_thresholds
    incoming = dict(zip(names, (grad_terms, grad_masks, grad_maps, grad_thresholds), strict=True))
    outgoing = {"grad_cams": grad_cams, "grad_cuts": grad_cuts}
    _run(cam_a, cam_b, thresholds, offsets, temperature, hard, True, **incoming, **outgoing)
    nothing = cam_a.new_empty(0)
    return grad_cams, nothing if given is None or grad_cuts is None else grad_cuts.to(given.dtype)


def backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    grad_cams, grad_cuts = backward_of_both(*arguments)
    cam_a, cam_b = arguments[4:6]
    return *host.split(grad_cams, cam_a, cam_b), grad_cuts
