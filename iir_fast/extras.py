"""What `pip install iir-fast` leaves out: the system around the loss is the extra `system`."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def needs_system(what: str) -> Iterator[None]:
    """Import inside; where a module of another distribution is not there, a sentence about `what` says what to install.

    Raises:
        ModuleNotFoundError: the sentence, with the line to type.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        # No name: a sentence from further inside. Our own: a fault of ours, which no installation mends.
        if error.name is None or error.name.partition(".")[0] == "iir_fast":
            raise
        raise ModuleNotFoundError(
            f"{what} needs {error.name}, which is not installed: pip install 'iir-fast[system]'"
        ) from error
