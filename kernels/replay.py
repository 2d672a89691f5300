"""What a function does on a GPU, done again on other tensors without its Python: allocations, torch, launches."""

from __future__ import annotations

import math
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


class _Writer:
    """Writes what was followed down as a function of Python: to go through a list of steps would take longer.

    Tensors are named by their numbers, `t0` and so on; all else that lines refer to is bound to names of its own.
    """

    def __init__(self, lines: list[str], allocations: dict[int, _Allocation]) -> None:
        self.lines = lines
        self._bound: dict[str, Any] = {"strided": torch.empty_strided}
        self._allocations = allocations.copy()
        self._views: dict[_Origin, str] = {}

    def bind(self, value: Any) -> str:
        """Name a value, or return the value as it is written."""
        if value is None or type(value) in (bool, int, str) or (type(value) is float and math.isfinite(value)):
            return repr(value)
        name = f"c{len(self._bound)}"
        self._bound[name] = value
        return name

    def find(self, place: Place) -> str:
        """Find what is at a place; memory is taken, and a view is made, where it is first asked for."""
        if isinstance(place, int):
            if place in self._allocations:
                size, stride, *options = self._allocations.pop(place)
                dtype, device = map(self.bind, options)
                self.lines.append(f"t{place} = strided({size}, {stride}, dtype={dtype}, device={device})")
            return f"t{place}"
        if isinstance(place, _Several):
            parts = "".join(f"{self.find(each)}, " for each in place.parts)
            return f"({parts})" if place.make is tuple else f"{self.bind(place.make)}([{parts}])"
        if place not in self._views:
            self._views[place] = f"v{len(self._views)}"
            root = self.find(place.root)
            start = f"{root}.storage_offset() + {place.offset}"
            self.lines.append(f"{self._views[place]} = {root}.as_strided({place.size}, {place.stride}, {start})")
        return self._views[place]

    def function(self) -> Callable[[Sequence[Any]], Any]:
        """Make a function of the arguments that the function followed was called with."""
        source = "".join(f"    {line}\n" for line in self.lines)
        namespace = self._bound
        exec(f"def again(arguments):\n{source}", namespace)
        again: Callable[[Sequence[Any]], Any] = namespace["again"]
        return again


class _Allocation(NamedTuple):
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: torch.dtype
    device: torch.device


class _Call(NamedTuple):
    """Torch computes something of its own."""

    number: int
    function: Callable[..., Any]
    values: list[Any]
    """Its positional arguments; places where there are tensors."""
    named: dict[str, Any]

    def write(self, writer: _Writer) -> None:
        given = [_written(writer, each) for each in self.values]
        given += [f"{name}={writer.bind(value)}" for name, value in self.named.items()]
        writer.lines.append(f"t{self.number} = {writer.bind(self.function)}({', '.join(given)})")


class _Kernel(NamedTuple):
    """A launch of compiled code."""

    run: Callable[..., None]
    """Takes all arguments of the kernel in its order, and the stream."""
    values: list[Any]

    def write(self, writer: _Writer) -> None:
        given = [_written(writer, each) for each in self.values]
        writer.lines.append(f"{writer.bind(self.run)}({', '.join(given)}, stream=stream)")


class _At(NamedTuple):
    """In place of a tensor among values."""

    place: Place


def _written(writer: _Writer, value: Any) -> str:
    return writer.find(value.place) if isinstance(value, _At) else writer.bind(value)


_local = threading.local()


def recording() -> Recording | None:
    """Return the one that follows this thread, if any."""
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
        self._paths = _paths(arguments)
        self._origins = {id(each): _whole(number, each) for number, each in enumerate(self._roots)}
        self._steps: list[_Call | _Kernel] = []
        self._allocations: dict[int, _Allocation] = {}
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
            self._allocations[self._note_root(made)] = _Allocation(
                tuple(made.shape), made.stride(), made.dtype, made.device
            )
        else:
            values = [self._take(each) for each in args]
            if _holds_tensors(kwargs):
                self._can_be_done_again = False
            self._steps.append(_Call(self._note_root(found[0]), func, values, dict(kwargs or {})))
        return results

    def note_launch(self, launch: Any, compiled: Any) -> None:
        """Note a launch and the compiled code that it ran; none in Triton's interpreter."""
        if compiled is None:
            self._can_be_done_again = False
            return
        named = {**launch.arguments, **launch.constants}
        values = [self._take(named[name]) for name in launch.kernel.arg_names]
        # A kernel takes an address: a view that begins where its root does need not be made.
        values = [_At(_root_if_there(each.place)) if isinstance(each, _At) else each for each in values]
        self._steps.append(_Kernel(compiled[(*launch.grid, 1, 1)[:3]], values))

    def replay(self, results: Any) -> Callable[[Sequence[Any]], Any] | None:
        """Make what does the same on other arguments; None if that cannot be."""
        place = self._place(results)
        if not self._can_be_done_again or place is None:
            return None
        arguments = [f"t{number} = arguments{path}" for number, path in enumerate(self._paths)]
        writer = _Writer(arguments, self._allocations)
        if any(isinstance(each, _Kernel) for each in self._steps):
            active = writer.bind(driver)
            writer.lines.append(f"stream = {active}.active.get_current_stream({active}.active.get_current_device())")
        for step in self._steps:
            step.write(writer)
        found = writer.find(place)
        writer.lines.append(f"return {found}")
        return writer.function()

    def _note_root(self, made: Tensor) -> int:
        number = len(self._roots)
        self._origins[id(made)] = _whole(number, made)
        self._roots.append(made)
        return number

    def _note_view(self, view: Tensor, of: Tensor) -> None:
        parent = self._origins.get(id(of))
        if parent is not None and view.dtype == of.dtype and id(view) not in self._origins:
            moved = int(view.storage_offset()) - int(of.storage_offset())
            self._origins[id(view)] = _Origin(parent.root, tuple(view.shape), view.stride(), parent.offset + moved)

    def _take(self, value: Any) -> Any:
        """Take a value; for one that is a tensor or holds some, where they lie."""
        if not _holds_tensors(value):
            return value
        place = self._place(value)
        if place is None:
            self._can_be_done_again = False
            return value
        return _At(place)

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


def _root_if_there(place: Place) -> Place:
    return place.root if isinstance(place, _Origin) and place.offset == 0 else place


def _paths(values: Sequence[Any], path: str = "") -> list[str]:
    """Find how to get at each tensor, in the order of `tree_leaves`."""
    found: list[str] = []
    for number, each in enumerate(values):
        if isinstance(each, Tensor):
            found.append(f"{path}[{number}]")
        elif isinstance(each, tuple):
            found += _paths(each, f"{path}[{number}]")
    return found


def _holds_tensors(values: Any) -> bool:
    return any(isinstance(each, Tensor) for each in tree_leaves(values))


def only_views(func: Any, args: Sequence[Any], results: Sequence[Tensor]) -> bool:
    """Tell whether a call of torch made nothing but views of its first argument.

    `contiguous` and `reshape` are views by their schemas, and copies where they must be.
    """
    return func.is_view and all(
        isinstance(args[0], Tensor) and each.untyped_storage()._cdata == args[0].untyped_storage()._cdata
        for each in results
    )


def _whole(number: int, root: Tensor) -> _Origin:
    return _Origin(number, tuple(root.shape), root.stride(), 0)
