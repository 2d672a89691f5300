"""Arrays of real numbers in files that anyone made: looked at before memory is taken for them, and never executed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple
from zipfile import ZipFile

import numpy as np
from numpy.typing import NDArray

from iir_fast.app.files import in_short

_PARSE = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
_DEFLATED = 1032
"""How many bytes one deflated byte can stand for."""


class Header(NamedTuple):
    """What a file says of its array: integers, or floats of up to 64 bits, in any byte order."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __str__(self) -> str:
        return f"{self.dtype.name} {list(self.shape)}"


def read_header(file: Path) -> Header:
    """Read what a .npy file, or a .npz file of one array, says of itself, and check that it has the bytes it claims.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no regular file, no such array, or longer or shorter than it says; the message names it.
    """
    with _opened(file) as (_, header):
        return header


def read_array(file: Path) -> NDArray[Any]:
    """Read the array of a .npy file, or of a .npz file of one array.

    Raises:
        FileNotFoundError, ValueError: as `read_header`, or the file is damaged further on.
    """
    with _opened(file) as (stream, _):
        stream.seek(0)
        array: NDArray[Any] = np.lib.format.read_array(stream, allow_pickle=False)
        return array


@contextmanager
def _opened(file: Path) -> Iterator[tuple[IO[bytes], Header]]:
    # Asked before it is opened, which would wait at a pipe.
    if not file.exists():
        raise FileNotFoundError(f"{file} does not exist")
    if not file.is_file():
        raise ValueError(f"{file} is not a regular file")
    try:
        with ExitStack() as stack:
            size = file.stat().st_size
            if file.suffix == ".npz":
                archive = stack.enter_context(ZipFile(file))
                members = archive.infolist()
                if len(members) != 1:
                    raise ValueError(f"it holds {len(members)} arrays, and one is accepted")
                if members[0].file_size > _DEFLATED * size:
                    raise ValueError(f"it cannot hold the {members[0].file_size:,} bytes it claims")
                size = members[0].file_size
                stream = stack.enter_context(archive.open(members[0]))
            else:
                stream = stack.enter_context(file.open("rb"))
            yield stream, _header(stream, size)
    # The parsers of zipfile and numpy let through whatever they meet: BadZipFile, zlib.error, RecursionError ...
    except Exception as error:
        raise ValueError(f"{file} cannot be read as an array of numbers: {in_short(error)}") from error


def _header(stream: IO[bytes], size: int) -> Header:
    version = np.lib.format.read_magic(stream)
    if version not in _PARSE:
        raise ValueError(f"it is of version {version[0]}.{version[1]} of the format, which is for records")
    shape, _, dtype = _PARSE[version](stream)
    header = Header(shape, dtype)
    if dtype.kind not in "fiu" or dtype.itemsize > 8:
        raise ValueError(f"it holds {dtype.name}, and integers or float16, float32 and float64 are accepted")
    claimed = stream.tell() + math.prod(shape) * dtype.itemsize
    if claimed != size:
        raise ValueError(f"its header says {header}, which makes {claimed:,} bytes, and it has {size:,}")
    return header
