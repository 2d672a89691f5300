"""regulate on the compiled host kernels: one pass over the CAMs of each sample each way."""

from __future__ import annotations

import ctypes

import torch
from torch import Tensor

from iir_fast.kernels import native
from iir_fast.kernels.contract import FLAT_ABSOLUTE, FLAT_RELATIVE
from iir_fast.kernels.regulate import host


class _Regulation(ctypes.Structure):
    """`Regulation` in native.h."""

    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("cams", "given")),
        *((name, ctypes.c_float) for name in ("temperature", "flat_relative", "flat_absolute")),
        *((name, ctypes.c_long) for name in ("hard", "samples", "pixels")),
        *((name, ctypes.c_void_p) for name in ("terms", "masks", "maps", "thresholds")),
        *((name, ctypes.c_void_p) for name in ("grad_terms", "grad_masks", "grad_maps", "grad_thresholds")),
        *((name, ctypes.c_void_p) for name in ("grad_cams", "grad_given")),
    )


def _serves(cam_a: Tensor, cam_b: Tensor, thresholds: Tensor | None) -> bool:
    return native.serves_small(cam_a, cam_b, *([] if thresholds is None else [thresholds]))


def _run(
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    temperature: float,
    hard: bool,
    backward: bool,
    /,
    **others: Tensor | None,
) -> None:
    """`others` are the outputs and, backward, the gradients, by their names in native.h."""
    # These are referred to until the call returns.
    cams = torch.stack((cam_a.float(), cam_b.float()), dim=1).contiguous()
    given = None if thresholds is None else thresholds.float().contiguous()
    others = {name: None if tensor is None else tensor.contiguous() for name, tensor in others.items()}
    work = _Regulation(
        cams=native.address(cams),
        given=native.address(given),
        temperature=temperature,
        flat_relative=FLAT_RELATIVE,
        flat_absolute=FLAT_ABSOLUTE,
        hard=hard,
        samples=len(cams),
        pixels=cams[0, 0].numel(),
        **{name: native.address(tensor) for name, tensor in others.items()},
    )
    kernels = native.kernels()
    assert kernels is not None
    kernels.call("iir_fast_regulate", work, backward, threads=native.threads_for(cams.nbytes))


def forward(
    cam_a: Tensor, cam_b: Tensor, thresholds: Tensor | None, temperature: float, hard: bool
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if not _serves(cam_a, cam_b, thresholds):
        return host.forward(cam_a, cam_b, thresholds, temperature, hard)
    batch = len(cam_a)
    terms, cuts = torch.empty(batch, 2), torch.empty(batch, 2)
    masks, maps = (torch.empty(batch, 2, *cam_a.shape[1:]) for _ in range(2))
    outputs = {"terms": terms, "masks": masks, "maps": maps, "thresholds": cuts}
    _run(cam_a, cam_b, thresholds, temperature, hard, False, **outputs)
    return terms, masks, maps, cuts


def backward(
    grad_terms: Tensor,
    grad_masks: Tensor,
    grad_maps: Tensor,
    grad_thresholds: Tensor,
    cam_a: Tensor,
    cam_b: Tensor,
    thresholds: Tensor | None,
    temperature: float,
    hard: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if not _serves(cam_a, cam_b, thresholds):
        return host.backward(
            grad_terms, grad_masks, grad_maps, grad_thresholds, cam_a, cam_b, thresholds, temperature, hard
        )
    grad_cams = torch.empty(len(cam_a), 2, *cam_a.shape[1:])
    grad_given = None if thresholds is None else torch.empty(thresholds.shape)
    incoming = {
        "grad_terms": grad_terms,
        "grad_masks": grad_masks,
        "grad_maps": grad_maps,
        "grad_thresholds": grad_thresholds,
    }
    outgoing = {"grad_cams": grad_cams, "grad_given": grad_given}
    _run(cam_a, cam_b, thresholds, temperature, hard, True, **incoming, **outgoing)
    # Copies: results that share memory would not be results of their own.
    return (
        grad_cams[:, 0].to(cam_a.dtype, copy=True, memory_format=torch.contiguous_format),
        grad_cams[:, 1].to(cam_b.dtype, copy=True, memory_format=torch.contiguous_format),
        cam_a.new_empty(0) if thresholds is None or grad_given is None else grad_given.to(thresholds.dtype),
    )
