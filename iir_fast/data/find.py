"""Image files by name: below a folder, or as a person names them on a command line."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path
from typing import NoReturn

from torchvision.datasets.folder import IMG_EXTENSIONS  # type: ignore[import-untyped]

SUFFIXES: tuple[str, ...] = IMG_EXTENSIONS
"""An image is known by its suffix, in any case."""
LISTED = ", ".join(SUFFIXES)
TAKEN = f"files that end in {LISTED} are taken"


def image_paths(folder: Path) -> list[str]:
    """List all images below a folder, relative to it, sorted.

    Names that begin with a dot are passed over, links are followed.

    Raises:
        OSError: a folder cannot be read.
    """
    paths: list[str] = []
    for here, folders, names in os.walk(folder, onerror=_stop, followlinks=True):
        folders[:] = [name for name in folders if not name.startswith(".")]
        base = Path(here).relative_to(folder)
        paths += [(base / name).as_posix() for name in names if _is_image(name) and not name.startswith(".")]
    return sorted(paths)


def find_images(sources: Iterable[str | PathLike[str]]) -> list[Path]:
    """Find the image files that files, folders and globs stand for.

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
    path, is_pattern = Path(source), glob.has_magic(source)
    if path.is_dir():
        images = [path / name for name in image_paths(path)]
    elif _is_image(source) and (path.exists() or not is_pattern):
        images = [path]
    elif path.exists():
        suffix = f"ends in {path.suffix!r}" if path.suffix else "has no suffix"
        raise ValueError(f"{source} {suffix}; accepted are images that end in {LISTED}.")
    elif is_pattern:
        matches = sorted(map(Path, glob.glob(source, recursive=True)))
        images = [match for match in matches if _is_image(match.name) and match.is_file()]
    else:
        raise FileNotFoundError(f"{source} does not exist; accepted are image files, folders and globs.")
    if not images:
        raise ValueError(f"the {'folder' if path.is_dir() else 'glob'} {source} holds no image; {TAKEN}.")
    return images


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _stop(error: OSError) -> NoReturn:
    # os.walk would pass over a folder that it may not read.
    raise error
