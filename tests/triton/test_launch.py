"""What a function did on a GPU is done again without the function: here with kernels that are written in torch."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace
from typing import Any, NamedTuple

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from iir_fast.kernels import replay
from iir_fast.kernels.launch import MAX_KEPT, Launch, launched, recorded, run

STREAM = 7


class Kernel:
    """Adds `number` to `count` elements from where `source` begins, into `target`: it sees addresses, not shapes."""

    arg_names = ("source", "target", "number", "count", "BLOCK")

    def __init__(self, compiles: bool = True) -> None:
        self.compiles = compiles
        self.launches: list[tuple[Any, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def launch(source: Tensor, target: Tensor, number: float, count: int, BLOCK: int, **options: Any) -> Any:
            self.run(grid, source, target, number, count, BLOCK)
            return Compiled(self) if self.compiles else None

        return launch

    def run(self, grid: tuple[int, ...], source: Tensor, target: Tensor, number: float, count: int, block: int) -> None:
        assert block == 64
        self.launches.append(grid)
        # A kernel's own work is none of torch's.
        with _disable_current_modes():
            read, written = (each.as_strided((count,), (1,), each.storage_offset()) for each in (source, target))
            written.copy_(read + number)


class Compiled:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        def runner(*values: Any, stream: int) -> None:
            assert stream == STREAM
            self.kernel.run(grid, *values)

        return runner


class Pair(NamedTuple):
    one: Tensor
    other: Tensor


@pytest.fixture(autouse=True)
def stream(monkeypatch):
    active = SimpleNamespace(get_current_device=lambda: 0, get_current_stream=lambda device: STREAM)
    monkeypatch.setattr(replay, "driver", SimpleNamespace(active=active))


def launch(kernel: Kernel, source: Tensor, target: Tensor, number: float = 1.0) -> Launch:
    arguments = {"source": source.contiguous(), "target": target, "number": number, "count": source.numel()}
    return Launch(kernel, (2,), arguments, {"BLOCK": 64})


class Counted:
    """A function that allocates, computes, makes views and launches."""

    def __init__(self, compiles: bool = True) -> None:
        self.kernel, self.calls = Kernel(compiles), 0
        self.again = recorded(self)

    def __call__(self, source: Tensor, rows: Tensor | None, number: float) -> tuple[Pair, Tensor]:
        self.calls += 1
        both = source.new_empty(2, *source.shape)
        first, second = both.unbind()
        run([launch(self.kernel, source, first, number), launch(self.kernel, first, second, number)])
        if rows is not None:
            second = torch.cat([second, rows])
        return Pair(first.flatten(), torch.mm(source, second.T)), second


def expected(source: Tensor, rows: Tensor | None, number: float) -> list[Tensor]:
    second = source + 2 * number
    second = second if rows is None else torch.cat([second, rows])
    return [(source + number).flatten(), source @ second.T, second]


def flat(found: tuple[Pair, Tensor]) -> list[Tensor]:
    assert isinstance(found[0], Pair)
    return [*found[0], found[1]]


@pytest.mark.parametrize("with_rows", [False, True])
def test_it_is_done_again_on_other_tensors_without_the_function(with_rows):
    function = Counted()
    results = []
    for _ in range(3):
        source, rows = torch.randn(3, 4), torch.randn(2, 4) if with_rows else None
        results.append((flat(function.again(source, rows, 0.5)), expected(source, rows, 0.5)))
    assert function.calls == 1
    # A grid in one dimension, then in three.
    assert function.kernel.launches == [(2,)] * 2 + [(2, 1, 1)] * 4
    for found, wanted in results:
        for one, other in zip(found, wanted, strict=True):
            assert one.stride() == other.stride()
            torch.testing.assert_close(one, other)


@pytest.mark.parametrize(
    "change",
    [
        lambda source: (torch.randn(5, 4), None, 0.5),
        lambda source: (source.double(), None, 0.5),
        lambda source: (torch.randn(4, 3).T, None, 0.5),
        lambda source: (torch.randn(13)[1:].view(3, 4), None, 0.5),
        lambda source: (source, torch.randn(1, 4), 0.5),
        lambda source: (source, None, 0.25),
    ],
    ids=["shape", "dtype", "strides", "alignment", "presence", "number"],
)
def test_what_it_may_depend_on_is_looked_at(change):
    function = Counted()
    source = torch.randn(3, 4)
    function.again(source, None, 0.5)
    arguments = change(source)
    found = flat(function.again(*arguments))
    assert function.calls == 2
    for one, other in zip(found, expected(*arguments), strict=True):
        torch.testing.assert_close(one, other)


def test_a_copy_is_made_again():
    """`contiguous` is a view by its schema."""
    calls = []

    @recorded
    def function(source: Tensor) -> Tensor:
        calls.append(source)
        return source.contiguous().view(-1)

    for _ in range(2):
        source = torch.randn(4, 3).T
        assert torch.equal(function(source), source.reshape(-1))
    assert len(calls) == 1


def test_views_of_arguments_follow_the_arguments():
    """Also of one that begins in the middle of its memory."""

    @recorded
    def function(source: Tensor) -> Tensor:
        return source[1:]

    for start in (0, 4, 8):
        source = torch.randn(5, 4)[start // 4 :][:3]
        assert function(source).data_ptr() == source[1:].data_ptr()


@pytest.mark.parametrize(
    "impure",
    [
        lambda x: x.add_(1),
        lambda x: x + x.sum().item(),
        lambda x: torch.aminmax(x)[0],
        lambda x: x.view(torch.int32) + 1,
    ],
    ids=["in_place", "reads_a_value", "two_results", "other_dtype"],
)
def test_what_cannot_be_done_again_is_called_every_time(impure):
    calls = []

    @recorded
    def function(source: Tensor) -> Tensor:
        calls.append(1)
        return impure(source * 1)

    for _ in range(2):
        source = torch.randn(4)
        assert torch.equal(function(source), impure(source * 1))
    assert len(calls) == 2


def test_without_compiled_code_it_is_called_every_time():
    function = Counted(compiles=False)
    for _ in range(2):
        function.again(torch.randn(3, 4), None, 0.5)
    assert function.calls == 2


def test_a_plan_inside_is_part_of_what_is_followed():
    kernel, outer_calls, plans = Kernel(), [], []

    @launched
    def inner(source: Tensor) -> tuple[Tensor, list[Launch]]:
        plans.append(1)
        target = torch.empty_like(source)
        return target, [launch(kernel, source, target)]

    @recorded
    def outer(source: Tensor) -> Tensor:
        outer_calls.append(1)
        return inner(source) * 2

    for _ in range(3):
        source = torch.randn(3)
        torch.testing.assert_close(outer(source), (source + 1) * 2)
    assert len(outer_calls) == len(plans) == 1
    source = torch.randn(3)
    torch.testing.assert_close(inner(source), source + 1)
    assert len(plans) == 2


def test_a_launch_without_programs_is_left_out():
    kernel = Kernel()

    @recorded
    def function(source: Tensor) -> Tensor:
        target = torch.zeros_like(source)
        run([replace(launch(kernel, source, target), grid=(0, 3))])
        return target

    for _ in range(2):
        assert torch.equal(function(torch.ones(3)), torch.zeros(3))
    assert kernel.launches == []


def test_it_keeps_so_many_kinds_and_no_more():
    function = Counted()
    for number in range(MAX_KEPT + 1):
        function.again(torch.ones(1, 1), None, float(number))
    # The first ones are gone, the last one is there.
    function.again(torch.ones(1, 1), None, float(MAX_KEPT))
    assert function.calls == MAX_KEPT + 1
    function.again(torch.ones(1, 1), None, 0.0)
    assert function.calls == MAX_KEPT + 2
