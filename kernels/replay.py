"""What a function does on a GPU, done again on other tensors without its Python: allocations, torch, launches."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from triton.runtime import driver


class _Origin(NamedTuple):
    """Where a tensor's elements lie: in an argument of the function or in something that it made."""

    root: int
    """Number of that tensor, arguments first."""
    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int
    """Elements from where that tensor begins."""


class _Several(NamedTuple):
    """A tuple or a list of tensors."""

    make: Callable[[list[Any]], Any]
    parts: list[Place]


Place: TypeAlias = "int | _Origin | _Several"
"""A whole root, a view of one, or several."""


class _Allocation(NamedTuple):
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device

    def do(self, roots: list[Tensor], stream: Any) -> None:
        roots.append(torch.empty_strided(self.size, self.stride, dtype=self.dtype, device=self.device))


class _Call(NamedTuple):
    """Torch computes something of its own."""

    function: Callable[..., Any]
    values: list[Any]
    """Its positional arguments, with gaps where there are tensors."""
    tensors: list[tuple[int, Place]]
    named: dict[str, Any]

    def do(self, roots: list[Tensor], stream: Any) -> None:
        values = self.values.copy()
        for position, place in self.tensors:
            values[position] = _find(roots, place)
        roots.append(self.function(*values, **self.named))


class _Kernel(NamedTuple):
    """A launch of compiled code."""

    run: Callable[..., None]
    """Takes all arguments of the kernel in its order, and the stream."""
    values: list[Any]
    tensors: list[tuple[int, Place]]

    def do(self, roots: list[Tensor], stream: Any) -> None:
        values = self.values.copy()
        for position, place in self.tensors:
            values[position] = roots[place] if isinstance(place, int) else _find(roots, place)
        self.run(*values, stream=stream)


_local = threading.local()


def recording() -> Recording | None:
    """The one that follows this thread, if any."""
    found: Recording | None = getattr(_local, "recording", None)
    return found


class Recording(TorchDispatchMode):
    """Follows a function: what it allocates, computes and launches, and what are views of that or of its arguments.

    Args:
        arguments: the function's; tensors, tuples of tensors, and anything else.
    """

    def __init__(self, arguments: Sequence[Any]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._roots = [each for each in tree_leaves(arguments) if isinstance(each, Tensor)]
        self._origins = {id(each): _whole(number, each) for number, each in enumerate(self._roots)}
        self._steps: list[_Allocation | _Call | _Kernel] = []
        # An id is a tensor's own for as long as that is there.
        self._seen: list[Any] = []
        self._can_be_done_again = True

    def __enter__(self) -> Recording:
        _local.recording = self
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, *exception: Any) -> None:
        _local.recording = None
        super().__exit__(*exception)  # type: ignore[no-untyped-call]

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        results = func(*args, **(kwargs or {}))
        self._seen.append((args, results))
        found = results if isinstance(results, tuple | list) else [results]
        if not all(isinstance(each, Tensor) for each in found) or func._schema.is_mutable:
            self._can_be_done_again = False
        elif only_views(func, args, found):
            for each in found:
                self._note_view(each, args[0])
        elif len(found) != 1:
            self._can_be_done_again = False
        elif "empty" in func.overloadpacket.__name__:
            (made,) = found
            self._steps.append(_Allocation(tuple(made.shape), made.stride(), made.dtype, made.device))
            self._note_root(made)
        else:
            values = list(args)
            tensors = self._take_tensors(values)
            if any(isinstance(each, Tensor) for each in tree_leaves(kwargs)):
                self._can_be_done_again = False
            self._steps.append(_Call(func, values, tensors, dict(kwargs or {})))
            self._note_root(found[0])
        return results

    def note_launch(self, launch: Any, compiled: Any) -> None:
        """A launch and the compiled code that it ran; none in Triton's interpreter."""
        if compiled is None:
            self._can_be_done_again = False
            return
        named = {**launch.arguments, **launch.constants}
        values = [named[name] for name in launch.kernel.arg_names]
        tensors = self._take_tensors(values)
        # A kernel takes an address: a view that begins where its root does need not be made.
        at = [(position, _root_if_there(place)) for position, place in tensors]
        self._steps.append(_Kernel(compiled[(*launch.grid, 1, 1)[:3]], values, at))

    def replay(self, results: Any) -> Callable[[Sequence[Any]], Any] | None:
        """What does the same on other arguments; None if that cannot be."""
        place = self._place(results)
        if not self._can_be_done_again or place is None:
            return None
        steps = [each.do for each in self._steps]
        launches = any(isinstance(each, _Kernel) for each in self._steps)

        def replay(arguments: Sequence[Any]) -> Any:
            roots = _tensors(arguments)
            stream = None
            if launches:
                active = driver.active
                stream = active.get_current_stream(active.get_current_device())
            for do in steps:
                do(roots, stream)
            return _find(roots, place)

        return replay

    def _note_root(self, made: Tensor) -> None:
        self._origins[id(made)] = _whole(len(self._roots), made)
        self._roots.append(made)

    def _note_view(self, view: Tensor, of: Tensor) -> None:
        parent = self._origins.get(id(of))
        if parent is not None and view.dtype == of.dtype and id(view) not in self._origins:
            moved = int(view.storage_offset()) - int(of.storage_offset())
            self._origins[id(view)] = _Origin(parent.root, tuple(view.shape), view.stride(), parent.offset + moved)

    def _take_tensors(self, values: list[Any]) -> list[tuple[int, Place]]:
        """Where the tensors among the values lie; in their stead, gaps."""
        tensors = []
        for position, value in enumerate(values):
            if isinstance(value, Tensor) or (isinstance(value, list | tuple) and _holds_tensors(value)):
                place = self._place(value)
                if place is None:
                    self._can_be_done_again = False
                else:
                    tensors.append((position, place))
                    values[position] = None
        return tensors

    def _place(self, value: Any) -> Place | None:
        if isinstance(value, Tensor):
            origin = self._origins.get(id(value))
            if origin is None:
                return None
            return origin.root if origin == _whole(origin.root, self._roots[origin.root]) else origin
        if not isinstance(value, tuple | list):
            return None
        parts = [self._place(each) for each in value]
        make = type(value)._make if hasattr(value, "_make") else type(value)
        return None if None in parts else _Several(make, [each for each in parts if each is not None])


def _find(roots: list[Tensor], place: Place) -> Any:
    if isinstance(place, int):
        return roots[place]
    if isinstance(place, _Origin):
        root = roots[place.root]
        return root.as_strided(place.size, place.stride, root.storage_offset() + place.offset)
    return place.make([_find(roots, each) for each in place.parts])


def _root_if_there(place: Place) -> Place:
    return place.root if isinstance(place, _Origin) and place.offset == 0 else place


def _tensors(arguments: Sequence[Any]) -> list[Tensor]:
    """As `tree_leaves` has them, which takes its time."""
    found: list[Tensor] = []
    for each in arguments:
        if isinstance(each, Tensor):
            found.append(each)
        elif isinstance(each, tuple):
            found += _tensors(each)
    return found


def _holds_tensors(values: Any) -> bool:
    return any(isinstance(each, Tensor) for each in tree_leaves(values))


def only_views(func: Any, args: Sequence[Any], results: Sequence[Tensor]) -> bool:
    """Whether a call of torch made nothing but views of its first argument.

    `contiguous` and `reshape` are views by their schemas, and copies where they must be.
    """
    return func.is_view and all(
        isinstance(args[0], Tensor) and each.untyped_storage()._cdata == args[0].untyped_storage()._cdata
        for each in results
    )


def _whole(number: int, root: Tensor) -> _Origin:
    return _Origin(number, tuple(root.shape), root.stride(), 0)
