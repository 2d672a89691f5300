"""What was done in the folder of a run, when, by which program on which machine and data: so that it can be cited."""

from __future__ import annotations

import hashlib
import json
import shlex
import sys
from datetime import datetime, timezone
from pathlib import Path

import torch

from iir_fast import __version__
from iir_fast.app.files import set_aside, write_whole
from iir_fast.app.machine import commit, describe_machine
from iir_fast.data import LocalizationDataset

HISTORY = "history.json"
"""The file, in the folder of a run: a list, one object a line, the oldest first."""


def add_to_history(root: Path, did: str, source: str, dataset: LocalizationDataset, processes: int = 1) -> None:
    """Write down, in the folder of a run, that something was done with a data set; a damaged file is set aside.

    Args:
        did: what was done, as the file is to call it: "train", or "evaluate" and the name of the result.
        source: where the data are, by an absolute path.
    """
    file = root / HISTORY
    labelled = hashlib.sha256(repr(list(zip(dataset.ids, dataset.labels, strict=True))).encode())
    entry = {
        "did": did,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        "version": __version__,
        "commit": commit(),
        "torch": torch.__version__,
        "machine": describe_machine(),
        "processes": processes,
        "data": {
            "source": source,
            "split": dataset.split,
            "images": len(dataset),
            "classes": len(dataset.classes),
            # The first is the same wherever the data are copied to, the second changes with any file.
            "names_and_labels": labelled.hexdigest()[:16],
            "fingerprint": dataset.fingerprint,
        },
    }
    lines = ",\n".join(map(json.dumps, [*read_history(root), entry]))
    write_whole(file, f"[\n{lines}\n]\n")


def read_history(root: Path) -> list[dict[str, object]]:
    """Read what was done in the folder of a run, the oldest first; a damaged file is set aside, and said so."""
    file = root / HISTORY
    if not file.is_file():
        return []
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        if not isinstance(found, list) or not all(isinstance(each, dict) for each in found):
            raise ValueError("it holds no list of objects")
    except (ValueError, RecursionError) as error:
        set_aside(file, f"{file} is damaged: {error}")
        return []
    return found
