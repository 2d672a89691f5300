"""How many bytes of tensors a piece of code holds at most, counted without running it."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class LiveMemory(TorchDispatchMode):
    """Inside the `with` block, counts the memory of every tensor that an operator makes until nothing refers to it.

    Meant for a FakeTensorMode around it, where operators make tensors of the right size without memory. What an
    operator allocates for itself while it runs, such as a convolution's workspace, is not seen, but for those of
    iir_fast that are named.

    Args:
        held: tensors that were there before and are not counted, such as parameters.
        seen: name of an operator of iir_fast -> its implementation, which is called in its place.

    Attributes:
        now: bytes that are held at this moment.
        peak: most bytes that were held at one moment since the start, or since `forget_peak`.
    """

    def __init__(self, held: Iterable[Tensor] = (), seen: Mapping[str, Callable[..., Any]] | None = None) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._seen = seen or {}
        self.now = 0
        self.peak = 0
        self._bytes: dict[int, int] = {}
        for tensor in held:
            self._follow(tensor, 0)

    def forget_peak(self) -> None:
        """Look for the peak from this moment on."""
        self.peak = self.now

    def forget(self, tensor: Tensor) -> None:
        """Count this tensor no longer."""
        key = tensor.untyped_storage()._cdata
        self.now -= self._bytes.get(key, 0)
        self._bytes[key] = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func is torch.ops.aten.add.Tensor and _accumulates(*args[:2]):
            return args[0]
        if func.namespace == "iir_fast" and func.overloadpacket.__name__ in self._seen:
            with self:
                results = self._seen[func.overloadpacket.__name__](*args)
        else:
            results = func(*args, **(kwargs or {}))
        for result in tree_leaves(results):
            if isinstance(result, Tensor):
                self._follow(result, result.untyped_storage().nbytes())
        return results

    def _follow(self, tensor: Tensor, size: int) -> None:
        storage = tensor.untyped_storage()
        # Views and results of in-place operators have a storage that is known already.
        if storage._cdata in self._bytes:
            return
        self._bytes[storage._cdata] = size
        self.now += size
        self.peak = max(self.peak, self.now)
        # torch keeps a storage's Python object for as long as any tensor, or the graph, refers to the storage.
        weakref.finalize(storage, self._drop, storage._cdata).atexit = False

    def _drop(self, key: int) -> None:
        self.now -= self._bytes.pop(key)


def _accumulates(sum_so_far: Any, gradient: Any) -> bool:
    """Tell whether autograd is adding a gradient to one that it has alone: in place, but for fake tensors.

    It has not if that one is a view, whose base it keeps, or does not fill its storage, as an expanded one.
    """
    return (
        torch._C._current_graph_task_id() >= 0
        and isinstance(gradient, Tensor)
        and (gradient.shape, gradient.dtype) == (sum_so_far.shape, sum_so_far.dtype)
        and sum_so_far.untyped_storage().nbytes() >= sum_so_far.nbytes
        and not sum_so_far._is_view()
    )
