"""What all operators agree on: precision, layout of gradients, and the wording of their errors.

Precision: a float32 result or gradient differs from the float64 reference by at most 1e-5 of the largest magnitude in
it; where the terms of its formula cancel, by at most 4 / tau + 3 roundings (2^-24 each; 43 with tau = 0.1) of the
largest sum of the terms' magnitudes, in the result and in the gradient alike. So the gradient of a map of two pixels,
which is zero because the map is 0 and 1 whatever its CAM, may be off by all of itself.

Range: that holds where features and descriptors are at most 1e17 and CAMs at most 1e37 in magnitude. Beyond, a square
or a difference may overflow float32; what depends on it is then NaN or infinite, never a wrong number.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensor

# A denominator of a descriptor's mean: keeps an empty region at zero instead of 0/0.
MASS_EPSILON = 1e-6
# A map whose range is below this share of its largest magnitude carries rounding noise, not evidence: constant.
FLAT_RELATIVE = 1e-6
FLAT_ABSOLUTE = 1e-12
# A threshold moved from a map's mean takes the mean's logit: the mean is kept this far from 0 and 1.
MEAN_MARGIN = 1e-4
# A vector shorter than this has no direction: its unit vector is zero, with zero gradient.
SHORT_NORM = 1e-12

FLOATING = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


class Factors(NamedTuple):
    """A gradient of the features: sum_n per_channel[n,c] per_pixel[n,p] + added[c], not written yet."""

    per_channel: Tensor
    """[B,N,C]"""
    per_pixel: Tensor
    """[B,N,P]"""
    added: Tensor
    """[B,C]"""


def accumulation_dtype(*tensors: Tensor) -> torch.dtype:
    """Return float64 when any tensor is float64, else float32: the dtype of sums and of every small result."""
    return torch.float64 if any(tensor.dtype == torch.float64 for tensor in tensors) else torch.float32


def nan_if_infinite(divisor: Tensor) -> Tensor:
    """Make what has overflowed NaN: to divide by infinity would give zeros that look like a result."""
    return divisor + (divisor - divisor)


_NOTHING: AbstractContextManager[None] = nullcontext()


def full_precision(device: torch.device) -> AbstractContextManager[Any]:
    """Keep an enclosing autocast region, if there is one, from lowering the dtypes that the contract fixes."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else _NOTHING


def current_device(device: torch.device) -> AbstractContextManager[None]:
    """Make a GPU the current one, unless it is: Triton launches there, whichever GPU holds the tensors."""
    elsewhere = device.type == "cuda" and device.index != torch.cuda.current_device()
    return torch.cuda.device(device) if elsewhere else _NOTHING


def is_fake(tensor: Tensor) -> bool:
    """Tell whether there is nothing behind a tensor but its shape, whatever device it is said to be on."""
    return isinstance(tensor, FakeTensor)


def gradient_like(features: Tensor) -> Tensor:
    """Allocate a gradient of `features`: channels_last when they are, contiguous otherwise."""
    in_channels_last = features.is_contiguous(memory_format=torch.channels_last) and not features.is_contiguous()
    return torch.empty(
        features.shape,
        dtype=features.dtype,
        device=features.device,
        memory_format=torch.channels_last if in_channels_last else torch.contiguous_format,
    )


def check_floating(operator: str, **tensors: Tensor) -> None:
    """Raise TypeError unless every tensor has one of the floating dtypes the operators accept."""
    for name, tensor in tensors.items():
        if tensor.dtype not in FLOATING:
            raise TypeError(
                f"{operator}: {name} has dtype {tensor.dtype}; accepted are float16, bfloat16, float32 and float64."
            )


def check_shape(operator: str, name: str, tensor: Tensor, wanted: str, *sizes: int | None) -> None:
    """Raise ValueError unless `tensor` has the given sizes (None: any), described to the reader as `wanted`."""
    shape = tensor.shape
    if shape == sizes:
        return
    if len(shape) != len(sizes) or any(size not in (None, actual) for size, actual in zip(sizes, shape, strict=True)):
        raise ValueError(f"{operator}: {name} has shape {list(tensor.shape)}; accepted is {wanted}.")


def check_features(operator: str, features: Tensor) -> None:
    """Raise unless `features` is a floating map [B,C,H,W] with at least one channel and one pixel (B may be 0)."""
    check_floating(operator, features=features)
    check_shape(operator, "features", features, "[B,C,H,W]", None, None, None, None)
    if 0 in features.shape[1:]:
        raise ValueError(f"{operator}: features has shape {list(features.shape)}; C, H and W must be at least 1.")


def check_integer_vector(operator: str, name: str, tensor: Tensor, length: int) -> None:
    """Raise unless `tensor` holds `length` int64 values."""
    if tensor.dtype != torch.int64:
        raise TypeError(f"{operator}: {name} has dtype {tensor.dtype}; accepted is torch.int64.")
    check_shape(operator, name, tensor, f"[{length}], one per sample", length)


def check_range(operator: str, name: str, tensor: Tensor, largest: int) -> None:
    """Raise IndexError when an integer, or ValueError when a floating number, is below 0 or above `largest`.

    Only where looking is free: not on a GPU, where it would stall the device, and not while compiling. NaN passes.
    """
    if tensor.device.type != "cpu" or is_fake(tensor) or torch.compiler.is_compiling() or tensor.numel() == 0:
        return
    lowest, highest = (value.item() for value in torch.aminmax(tensor.detach()))
    if lowest < 0 or highest > largest:
        fault = ValueError if tensor.is_floating_point() else IndexError
        raise fault(f"{operator}: {name} holds values from {lowest} to {highest}; accepted are 0 to {largest}.")
