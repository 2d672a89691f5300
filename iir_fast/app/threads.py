"""Work in threads, for what runs in compiled code without the interpreter lock: decoding, resizing, boxes."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def in_order(
    function: Callable[[Item], Result], items: Iterable[Item], ahead: int, workers: int | None = None, batch: int = 1
) -> Generator[Result]:
    """Map a function over items by threads that run only a little ahead of what was consumed: memory stays flat.

    Args:
        function: what it raises is raised where its result would have come.
        items: read in the calling thread, one by one.
        ahead: how many batches may be waiting.
        workers: number of threads; 0: all in the calling thread; None: as `ThreadPoolExecutor` chooses.
        batch: items that a thread takes at once.
    """
    if workers == 0:
        yield from map(function, items)
        return

    def run(part: list[Item]) -> list[Result]:
        return [function(item) for item in part]

    iterator = iter(items)
    with ThreadPoolExecutor(workers) as pool:
        pending: deque[Future[list[Result]]] = deque()
        while part := list(islice(iterator, batch)):
            pending.append(pool.submit(run, part))
            if len(pending) > ahead:
                yield from pending.popleft().result()
        while pending:
            yield from pending.popleft().result()
