"""Image files by name: below a folder, or as a person names them on a command line."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable, Sequence
from os import PathLike
from pathlib import Path
from typing import NamedTuple, NoReturn

from PIL import Image

from iir_fast.app.progress import log
from iir_fast.data.images import FORMATS

Image.init()
SUFFIXES = tuple(suffix for name, suffixes in FORMATS.items() if name in Image.OPEN for suffix in suffixes)
"""An image is known by its suffix, in any case."""
LISTED = ", ".join(SUFFIXES)
TAKEN = f"files that end in {LISTED} are taken"
_HELP = {
    "HEIF": 'HEIC needs pillow-heif: pip install "iir-fast[heic]"',
    "AVIF": "AVIF needs Pillow 11.3 or newer",
}
"""What to do about images that this Pillow does not read."""
SHOWN = 5
"""Files left out that a remark names; all of them are counted."""


class FoundFiles(NamedTuple):
    """The files below a folder, relative to it, sorted."""

    images: list[str]
    others: list[str]
    """Those whose suffix is no image's."""


def files_below(folder: Path) -> FoundFiles:
    """Find all images below a folder, and all that is none; OSError: a folder cannot be read.

    Names that begin with a dot are passed over, links are followed.
    """
    paths: list[str] = []
    for here, folders, names in os.walk(folder, onerror=_stop, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        base = Path(here).relative_to(folder)
        paths += [(base / name).as_posix() for name in names if not name.startswith(".")]
    paths.sort()
    return FoundFiles([path for path in paths if _is_image(path)], [path for path in paths if not _is_image(path)])


def left_out(folder: Path, others: Sequence[str]) -> str:
    """Say which files of a folder are left out because their suffix is no image's, and what would make it one."""
    files = "1 file" if len(others) == 1 else f"{len(others):,} files"
    more = f" and {len(others) - SHOWN:,} more" if len(others) > SHOWN else ""
    named = f"{', '.join(others[:SHOWN])}{more}"
    return f"{folder}: left out {files} without the suffix of an image: {named}{_help(others)}."


def _help(paths: Iterable[str]) -> str:
    wanting = {name: suffixes for name, suffixes in FORMATS.items() if name not in Image.OPEN}
    suffixes = {Path(path).suffix.lower() for path in paths}
    return "".join(f"; {_HELP[name]}" for name, own in wanting.items() if name in _HELP and suffixes.intersection(own))


def find_images(sources: Iterable[str | PathLike[str]]) -> list[Path]:
    """Find the image files that files, folders and globs stand for.

    What a folder or a glob holds beside images is counted and named in a remark. "~" is the home folder.

    Args:
        sources: image files, taken by their suffix alone (that one is missing shows when it is read); folders, which
            stand for all images below them; and globs as of `glob.glob`, "**" for any depth, which stand for the images
            among their matches. The images of a folder or a glob are sorted by path.

    Returns:
        Their paths in the order of the sources, each once.

    Raises:
        FileNotFoundError: a source is none of these.
        ValueError: a file is of another format, or a folder or a glob holds no image.
        OSError: a folder cannot be read.
    """
    return list(dict.fromkeys(path for source in sources for path in _images(str(source))))


def _images(source: str) -> list[Path]:
    source = os.path.expanduser(source)
    path, is_pattern = Path(source), glob.has_magic(source)
    others: list[str] = []
    if path.is_dir():
        names, others = files_below(path)
        images = [path / name for name in names]
    elif _is_image(source) and (path.exists() or not is_pattern):
        images = [path]
    elif path.exists():
        suffix = f"ends in {path.suffix!r}" if path.suffix else "has no suffix"
        raise ValueError(f"{source} {suffix}; accepted are images that end in {LISTED}{_help([source])}.")
    elif is_pattern:
        matches = [match for match in sorted(map(Path, glob.glob(source, recursive=True))) if match.is_file()]
        images = [match for match in matches if _is_image(match.name)]
        others = [str(match) for match in matches if not _is_image(match.name)]
    else:
        raise FileNotFoundError(f"{source} does not exist; accepted are image files, folders and globs.")
    if not images:
        kind = "folder" if path.is_dir() else "glob"
        raise ValueError(f"the {kind} {source} holds no image; {TAKEN}{_help(others)}.")
    if others:
        log(left_out(path, others))
    return images


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _stop(error: OSError) -> NoReturn:
    # os.walk would pass over a folder that it may not read.
    raise error
