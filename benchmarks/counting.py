"""Run kernels in Triton's interpreter and count every byte that their loads and stores touch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import _disable_current_modes
from triton.runtime.interpreter import interpreter_builder

from iir_fast.kernels.launch import Launch


@dataclass
class Access:
    """What a launch does to one block of memory, in one direction."""

    touched: NDArray[np.bool_]
    """For every element whether it was touched."""
    size: int
    """Bytes of an element."""
    bytes: int = 0
    """Bytes that were moved: a lane that is masked off does not count, an element that is touched twice does."""
    again: int = 0
    """Those among them that the same program had moved before."""
    _last: NDArray[np.int64] = field(init=False)
    """For every element the number of the program that touched it last."""

    def __post_init__(self) -> None:
        self._last = np.full(self.touched.shape, -1)

    def note(self, elements: NDArray[np.int64], program: int) -> None:
        """Count an access to these elements."""
        self.bytes += elements.size * self.size
        self.again += int((self._last[elements] == program).sum()) * self.size
        self._last[elements] = program
        self.touched[elements] = True

    @property
    def once(self) -> int:
        """Bytes if every element that was touched had been touched once."""
        return int(self.touched.sum()) * self.size


@dataclass
class Traffic:
    """What one launch moved. Tensors that share their memory count as one."""

    kernel: str
    read: dict[int, Access] = field(default_factory=dict)
    """By the address of the memory."""
    written: dict[int, Access] = field(default_factory=dict)

    @property
    def bytes(self) -> int:
        return sum(access.bytes for access in (*self.read.values(), *self.written.values()))

    @property
    def again(self) -> int:
        """Bytes that a program read again."""
        return sum(access.again for access in self.read.values())

    @property
    def floor(self) -> int:
        """Bytes if everything it touched had been read once or written once."""
        return sum(access.once for access in (*self.read.values(), *self.written.values()))


def _program() -> int:
    """A number for the program that runs."""
    first, second, third = interpreter_builder.grid_idx
    return first << 40 | second << 20 | third


@contextmanager
def counting() -> Iterator[list[Traffic]]:
    """Count the launches inside the block, in order. Needs a process started with TRITON_INTERPRET=1."""
    counted: list[Traffic] = []
    memory: dict[int, torch.UntypedStorage] = {}
    run = Launch.__call__
    load, store = interpreter_builder.create_masked_load, interpreter_builder.create_masked_store

    def launch(self: Launch) -> None:
        tensors = [value for value in self.arguments.values() if isinstance(value, torch.Tensor)]
        memory.clear()
        memory.update({tensor.untyped_storage().data_ptr(): tensor.untyped_storage() for tensor in tensors})
        counted.append(Traffic(self.kernel.fn.__name__))
        # What the interpreter itself does with torch is nobody's work.
        with _disable_current_modes():
            run(self)

    def note(accesses: dict[int, Access], pointers: Any, mask: Any) -> None:
        size = pointers.get_element_ty().primitive_bitwidth // 8
        addresses = pointers.data[np.broadcast_to(mask.data, pointers.data.shape)].astype(np.int64)
        for start, storage in memory.items():
            offsets = addresses[(addresses >= start) & (addresses < start + storage.nbytes())] - start
            if offsets.size:
                if start not in accesses:
                    accesses[start] = Access(np.zeros(storage.nbytes() // size, bool), size)
                accesses[start].note(offsets // size, _program())

    def counted_load(pointers: Any, mask: Any, *rest: Any) -> Any:
        note(counted[-1].read, pointers, mask)
        return load(pointers, mask, *rest)

    def counted_store(pointers: Any, value: Any, mask: Any, *rest: Any) -> Any:
        note(counted[-1].written, pointers, mask)
        return store(pointers, value, mask, *rest)

    with (
        patch.object(Launch, "__call__", launch),
        patch.object(interpreter_builder, "create_masked_load", counted_load),
        patch.object(interpreter_builder, "create_masked_store", counted_store),
    ):
        yield counted
