"""Memory for large gradients on the host, used again from step to step.

torch gives every large CPU tensor back to the operating system at once, so each backward pass would write its
gradients into pages that have to be found, cleared and mapped first: several times the work of writing them. As torch's
allocator does on a GPU, memory that is no longer in use is kept here for the next tensor of about that size, never more
of it than was in use at one time, and none of it once other sizes are asked for. It lies in large pages.
"""

from __future__ import annotations

import mmap
import weakref
from threading import Lock

import torch
from torch import Tensor

# From so many bytes on: smaller tensors stay with torch.
MIN_BYTES = 2**22
_LARGE_PAGE = 2**21
# A block may be so much larger than what is asked for.
_SLACK = 1.25


class Memory:
    """Blocks that are lent to tensors and come back when the last tensor on them is gone."""

    def __init__(self) -> None:
        # Blocks come back in whichever thread lets go of a tensor.
        self._lock = Lock()
        self._free: list[mmap.mmap] = []
        self._lent = 0
        self._most_lent = 0

    def empty_like(self, tensor: Tensor) -> Tensor:
        """Allocate a tensor of that shape, dtype and strides, which are dense."""
        needed = tensor.nbytes + _LARGE_PAGE
        with self._lock:
            fitting = next((block for block in self._free if needed <= len(block) <= _SLACK * needed), None)
            if fitting is None:
                self._free.clear()
                fitting = _map(tensor.nbytes)
            else:
                self._free.remove(fitting)
            self._lent += len(fitting)
            self._most_lent = max(self._most_lent, self._lent)
        # torch keeps the view until the storage is gone, and the view keeps the block.
        view = memoryview(fitting)
        weakref.finalize(view, self._take_back, fitting).atexit = False
        flat = torch.frombuffer(view, dtype=tensor.dtype, count=tensor.numel(), offset=_first_large_page(fitting))
        # In place: autograd adds to a gradient where it lies if nothing else refers to its memory.
        return flat.as_strided_(tensor.shape, tensor.stride())

    def _take_back(self, block: mmap.mmap) -> None:
        with self._lock:
            self._lent -= len(block)
            if self.held + len(block) <= self._most_lent:
                self._free.append(block)

    def release(self) -> None:
        """Give back what no tensor uses."""
        with self._lock:
            self._free.clear()
            self._most_lent = self._lent

    @property
    def held(self) -> int:
        """Bytes that are kept for later."""
        return sum(map(len, self._free))


def _map(size: int) -> mmap.mmap:
    """Room for so many bytes from a large page on, in large pages but for what would fill the last one in part."""
    block = mmap.mmap(-1, size + _LARGE_PAGE)
    if hasattr(mmap, "MADV_HUGEPAGE"):
        block.madvise(mmap.MADV_HUGEPAGE, _first_large_page(block), size // _LARGE_PAGE * _LARGE_PAGE)
    return block


def _first_large_page(block: mmap.mmap) -> int:
    """Count the bytes in front of it."""
    return -torch.frombuffer(block, dtype=torch.uint8).data_ptr() % _LARGE_PAGE


memory = Memory()
