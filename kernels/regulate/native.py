"""regulate on the compiled CPU kernels: one pass over the CAMs of each sample each way."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import FLAT_ABSOLUTE, FLAT_RELATIVE, MEAN_MARGIN, is_fake
from iir_fast.kernels.regulate.reference import Gradients, Inputs


class _Regulation(ctypes.Structure):
    """`Regulation` in native.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("cams", "given", "offsets")),
        *((name, ctypes.c_float) for name in ("temperature", "flat_relative", "flat_absolute", "mean_margin")),
        *((name, ctypes.c_long) for name in ("samples", "pixels")),
        *((name, ctypes.c_void_p) for name in ("terms", "masks", "maps", "thresholds")),
        *((name, ctypes.c_void_p) for name in ("grad_terms", "grad_masks", "grad_maps", "grad_thresholds")),
        *((name, ctypes.c_void_p) for name in ("grad_cams", "grad_cuts")),
    )


supports = native.supports_small


def _run(inputs: Inputs, backward: bool, **others: Tensor | None) -> None:
    """Run one call; `others` are the outputs and, backward, the gradients, by their names in native.h."""
    native.check(supports(*inputs[:4]), "regulate")
    # These are referred to until the call returns.
    cams = torch.stack((inputs.cam_a.float(), inputs.cam_b.float()), dim=1)
    given, moved = (None if each is None else each.float().contiguous() for each in (inputs.thresholds, inputs.offsets))
    others = {name: None if tensor is None else tensor.contiguous() for name, tensor in others.items()}
    work = _Regulation(
        cams=native.address(cams),
        given=native.address(given),
        offsets=native.address(moved),
        temperature=inputs.temperature,
        flat_relative=FLAT_RELATIVE,
        flat_absolute=FLAT_ABSOLUTE,
        mean_margin=MEAN_MARGIN,
        samples=len(cams),
        pixels=cams[0, 0].numel(),
        **{name: native.address(tensor) for name, tensor in others.items()},
    )
    kernels = native.kernels()
    assert kernels is not None
    if not is_fake(cams):
        kernels.call("iir_fast_regulate", work, backward, threads=native.threads_for(cams.nbytes))


def forward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    inputs = Inputs(*arguments)
    batch, *sides = inputs.cam_a.shape
    terms, cuts = torch.empty(batch, 2), torch.empty(batch, 2)
    masks, maps = (torch.empty(batch, 2, *sides) for _ in range(2))
    _run(inputs, False, terms=terms, masks=masks, maps=maps, thresholds=cuts)
    return terms, masks, maps, cuts


def backward_of_both(*arguments: Any) -> tuple[Tensor, Tensor]:
    """Compute gradients of both CAMs [B,2,H,W], and of what was given of thresholds and offsets."""
    incoming, inputs = Gradients(*arguments[:4]), Inputs(*arguments[4:])
    cam_a, given = inputs.cam_a, inputs.given
    grad_cams = torch.empty(len(cam_a), 2, *cam_a.shape[1:])
    grad_cuts = None if given is None else torch.empty(given.shape)
    _run(
        inputs,
        True,
        grad_terms=incoming.terms,
        grad_masks=incoming.masks,
        grad_maps=torch.zeros(grad_cams.shape) if incoming.maps is None else incoming.maps,
        grad_thresholds=torch.zeros(len(cam_a), 2) if incoming.thresholds is None else incoming.thresholds,
        grad_cams=grad_cams,
        grad_cuts=grad_cuts,
    )
    return grad_cams, cam_a.new_empty(0) if given is None or grad_cuts is None else grad_cuts.to(given.dtype)


def backward(*arguments: Any) -> tuple[Tensor, Tensor, Tensor]:
    grad_cams, grad_cuts = backward_of_both(*arguments)
    # Copies: results that share memory are none of their own.
    grad_a, grad_b = (
        gradient.to(cam.dtype, copy=True, memory_format=torch.contiguous_format)
        for gradient, cam in zip(grad_cams.unbind(1), arguments[4:6], strict=True)
    )
    return grad_a, grad_b, grad_cuts
