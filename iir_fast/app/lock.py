"""One process at a time in a folder."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from iir_fast.app.files import write_whole

LOCK, OWNER = ".lock", ".lock_owner"
"""Files in the folder. The second says who holds the first, which some versions of filelock empty when they try it."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other processes out of a folder, which is made where it is missing. Where another is in it, an OSError says
    which; the lock of a dead one holds nobody."""
    folder.mkdir(parents=True, exist_ok=True)
    lock, owner = FileLock(folder / LOCK), folder / OWNER
    try:
        lock.acquire(timeout=0)
    except Timeout:
        holder = owner.read_text(encoding="utf-8", errors="replace") if owner.is_file() else "another process"
        raise OSError(f"{folder} is in use by {holder}; wait until it has ended, or name another folder.") from None
    try:
        write_whole(owner, f"process {os.getpid()} on {socket.gethostname()}")
        yield
    finally:
        owner.unlink(missing_ok=True)
        lock.release()
