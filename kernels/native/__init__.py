"""Compiled CPU kernels: sums over the map of every sample from one read of it, and products that write one.

Every operator on features is made of these two; `regulate` and `subgroup_similarity`, which see no features, have loops
of their own. They take CPU tensors in float32 or bfloat16, NCHW or channels_last, accumulate in float32, use the best
instruction set that the machine has and torch's own threads, and give the same bits on any number of them. What they do
not take (`supports`), and everything where no compiler was at hand when the package was installed, runs on the
references.

The C++ stands beside this file: `native.h` says what can be asked for, `walk.h` does it.
"""

from __future__ import annotations

import ctypes
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

from iir_fast.kernels.contract import gradient_like, is_fake
from iir_fast.kernels.native.memory import MIN_BYTES, memory

_DTYPES = {torch.float32: 0, torch.bfloat16: 1}
_NUMBERS = ctypes.c_long
_POINTER = ctypes.c_void_p
MAX_TERMS = 4
"""Outer products that `products` takes: those of `Factors`."""
# A share of a sample is worth a turn of its own from so many bytes on; so many turns keep a large machine busy.
_SHARE_BYTES = 2**16
_TURNS = 64


class _Sums(ctypes.Structure):
    """`Sums` in native.h."""

    _fields_ = (
        ("maps", _POINTER),
        ("sample_stride", _NUMBERS),
        ("dtype", _NUMBERS),
        ("samples", _NUMBERS),
        ("rows", _NUMBERS),
        ("columns", _NUMBERS),
        ("vectors", _POINTER),
        ("vectors_stride", _NUMBERS),
        ("weights", _POINTER),
        ("weights_stride", _NUMBERS),
        ("dots", _POINTER),
        ("adds", _POINTER),
        ("number_of_dots", _NUMBERS),
        ("number_of_adds", _NUMBERS),
        ("squares", _NUMBERS),
        ("shares", _NUMBERS),
    )


class _Products(ctypes.Structure):
    """`Products` in native.h."""

    _fields_ = (
        ("target", _POINTER),
        ("dtype", _NUMBERS),
        ("samples", _NUMBERS),
        ("rows", _NUMBERS),
        ("columns", _NUMBERS),
        ("down_rows", _POINTER),
        ("down_rows_stride", _NUMBERS),
        ("along_rows", _POINTER),
        ("along_rows_stride", _NUMBERS),
        ("added_down_rows", _POINTER),
        ("added_along_rows", _POINTER),
        ("number_of_terms", _NUMBERS),
        ("shares", _NUMBERS),
    )


class Kernels:
    """The library, bound to one instruction set."""

    def __init__(self, library: ctypes.CDLL, number: int, name: str) -> None:
        self.name = name
        self._library = library
        self._number = number
        self._team = _POINTER(_team())

    def call(self, function: str, work: ctypes.Structure, *options: int, threads: int) -> int:
        """Call a function of native.cpp; what it returns, if anything."""
        called = getattr(self._library, function)
        result: int = called(ctypes.byref(work), *options, self._number, _NUMBERS(threads), self._team)
        return result


@cache
def all_kernels() -> list[Kernels]:
    """List the kernels for every instruction set that this machine has, best first; empty if there is no library."""
    path = Path(__file__).with_name("_kernels.library")
    if not path.exists():
        return []
    library = ctypes.CDLL(str(path))
    library.iir_fast_instruction_set.restype = ctypes.c_char_p
    found, number = [], 0
    while (name := library.iir_fast_instruction_set(number)) is not None:
        if name:
            found.append(Kernels(library, number, name.decode()))
        number += 1
    return found


def kernels() -> Kernels | None:
    """Return the kernels that run; None if the package was installed without a compiler."""
    return all_kernels()[0] if all_kernels() else None


def describe() -> str:
    """Say in one line which compiled kernels there are."""
    found = kernels()
    if found is None:
        return "none, the references alone; no C++ compiler was found when iir-fast was installed"
    rest = "the references for float64, float16 and strides that are neither NCHW nor channels_last"
    return f"compiled for {found.name}; {rest}"


def _team() -> int | None:
    """Find the address of GOMP_parallel in the OpenMP runtime that torch runs on; None where it has no such thing.

    A second runtime, or threads of our own, would fight torch's idle threads for the cores: these spin for a while.
    """
    try:
        torch_library = ctypes.CDLL(str(next((Path(torch.__file__).parent / "lib").glob("libtorch_cpu.*"))))
        return ctypes.cast(torch_library.GOMP_parallel, _POINTER).value
    except (StopIteration, OSError, AttributeError):
        return None


def supports(features: Tensor, *others: Tensor | None) -> bool:
    """Tell whether the kernels take these features [B,C,H,W] together with these small tensors, as far as given."""
    return (
        supports_small(features, *others)
        and features.dtype in _DTYPES
        and (_is_planar(features) or _is_channels_last(features))
    )


def supports_small(*tensors: Tensor | None) -> bool:
    """Tell whether the kernels that read no features take these tensors, once they are float32 and contiguous."""
    return _are_there() and all(
        tensor is None or (tensor.device.type == "cpu" and tensor.dtype != torch.float64 and tensor.numel() > 0)
        for tensor in tensors
    )


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _are_there() -> bool:
    return kernels() is not None


def check(supported: bool, operator: str) -> None:
    """Raise RuntimeError unless the kernels take what they are given, e.g. of a pass that ran elsewhere before."""
    if not supported:
        raise RuntimeError(
            f"{operator}: backend is 'native', which does not take these tensors; accepted are float32 and bfloat16 on "
            "the CPU, in a backward pass those of a forward pass that was native, too."
        )


def address(tensor: Tensor | None) -> int | None:
    """Tell where a tensor's memory begins, for a structure of native.h; nowhere if it is fake."""
    return None if tensor is None or is_fake(tensor) else tensor.data_ptr()


def _is_planar(features: Tensor) -> bool:
    return features[0].is_contiguous()


def _is_channels_last(features: Tensor) -> bool:
    return features[0].permute(1, 2, 0).is_contiguous()


def sums(
    features: Tensor, over_channels: Tensor | None, over_pixels: Tensor | None, squares: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """Compute weighted sums of the features over channels and over pixels, from one read of them.

    Args:
        features: [B,C,H,W] that `supports` accepts.
        over_channels: [B,N,C], N <= 4, or None: weights of N sums over channels.
        over_pixels: [B,M,P], M <= 4, or [1,M,P] for all samples alike, or None: weights of M sums over pixels.
            Both at once: N and M are at most 2, and one of them is 1.
        squares: also sum the squares over channels; with `over_channels` alone.

    Returns:
        [B,N,P], [B,M,C] and [B,P], float32; empty where nothing was asked for.
    """
    check(supports(features), "native.sums")
    batch, channels, pixels = features.shape[0], features.shape[1], features.shape[2] * features.shape[3]
    planar = _is_planar(features)
    rows, columns = (channels, pixels) if planar else (pixels, channels)
    dot_vectors, add_weights = (over_pixels, over_channels) if planar else (over_channels, over_pixels)
    vectors, weights = _dense(dot_vectors), _dense(add_weights)
    dot_count, add_count = vectors.shape[1], weights.shape[1]
    squares_beside_dots = squares and dot_count > 0
    shares = _shares(features, rows)
    dots = torch.empty((batch, dot_count + squares_beside_dots, rows))
    adds = torch.empty((batch, shares, add_count + (squares and not squares_beside_dots), columns))
    work = _Sums(
        address(features),
        features.stride(0),
        _DTYPES[features.dtype],
        batch,
        rows,
        columns,
        address(vectors),
        vectors.stride(0) if vectors.shape[0] > 1 else 0,
        address(weights),
        weights.stride(0) if weights.shape[0] > 1 else 0,
        address(dots),
        address(adds),
        dot_count,
        add_count,
        squares,
        shares,
    )
    if not _walk("iir_fast_sums", work, features):
        raise ValueError(f"native.sums: {dot_count} and {add_count} sums were asked for; see its docstring.")
    added = adds.sum(1) if shares > 1 else adds.squeeze(1)
    squared = torch.empty(0)
    if squares_beside_dots:
        dots, squared = dots[:, :-1], dots[:, -1]
    elif squares:
        added, squared = added[:, :-1], added[:, -1]
    return (added, dots, squared) if planar else (dots, added, squared)


def products(features: Tensor, per_channel: Tensor, per_pixel: Tensor, added: Tensor) -> Tensor:
    """Write a gradient of the features that is a sum of few outer products.

    Args:
        features: [B,C,H,W] that `supports` accepts; tells shape, dtype and layout.
        per_channel: [B,N,C], 1 <= N <= MAX_TERMS.
        per_pixel: [B,N,P].
        added: [B,C].

    Returns:
        [B,C,H,W] in the dtype and layout of the features: sum_n per_channel[n,c] per_pixel[n,p] + added[c].
    """
    check(supports(features), "native.products")
    batch, channels, pixels = features.shape[0], features.shape[1], features.shape[2] * features.shape[3]
    gradient = uninitialized(gradient_like(features))
    planar = gradient.is_contiguous()
    rows, columns = (channels, pixels) if planar else (pixels, channels)
    per_channel, per_pixel, added = _dense(per_channel), _dense(per_pixel), added.float().contiguous()
    down_rows, along_rows = (per_channel, per_pixel) if planar else (per_pixel, per_channel)
    terms = down_rows.shape[1]
    work = _Products(
        address(gradient),
        _DTYPES[gradient.dtype],
        batch,
        rows,
        columns,
        address(down_rows),
        terms * rows,
        address(along_rows),
        terms * columns,
        address(added) if planar else None,
        None if planar else address(added),
        terms,
        _shares(gradient, rows),
    )
    if not _walk("iir_fast_products", work, gradient):
        raise ValueError(f"native.products: {terms} products were asked for; accepted are 1 to {MAX_TERMS}.")
    return gradient


def uninitialized(like: Tensor) -> Tensor:
    """Allocate a CPU tensor to be written as a whole, of the shape, dtype and strides of one that is untouched yet."""
    return memory.empty_like(like) if like.nbytes >= MIN_BYTES and not is_fake(like) else like


def _dense(vectors: Tensor | None) -> Tensor:
    return torch.empty((1, 0, 0)) if vectors is None else vectors.float().contiguous()


def _shares(features: Tensor, rows: int) -> int:
    """Choose the shares of a sample's rows; from shapes alone, so that the order of every sum is too."""
    by_size = features[0].numel() * features.element_size() // _SHARE_BYTES
    return max(1, min(by_size, rows // 8, -(-_TURNS // features.shape[0])))


def _walk(name: str, work: ctypes.Structure, tensor: Tensor) -> bool:
    """Call a kernel that walks over a large tensor, unless that is fake; whether it takes what it was given."""
    found = kernels()
    if found is None:
        return False
    return is_fake(tensor) or found.call(name, work, threads=threads_for(tensor.nbytes)) != 0


def threads_for(size: int) -> int:
    """Count the threads that so many bytes are worth."""
    return max(1, min(torch.get_num_threads(), size // _SHARE_BYTES))
