"""What a figure was measured on: processor, memory, versions, commit."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from functools import cache
from importlib.metadata import version
from pathlib import Path

import torch


def usable_cores() -> int:
    """Count the cores this process may use."""
    # macOS and Windows cannot confine a process to some of them.
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def describe_machine() -> str:
    """Describe in one line: processor, cores this process may use, memory, GPU, system, versions, commit."""
    cores = usable_cores()
    parts = [processor(), f"{cores} core{'s' * (cores > 1)}"]
    if memory := memory_bytes():
        parts.append(f"{memory / 2**30:.0f} GiB")
    if torch.cuda.is_available():
        parts.append(torch.cuda.get_device_name())
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "timm", "iir-fast"))
    source = commit()
    built = f" (commit {source})" if source else ""
    return f"{', '.join(parts)}; {platform.system()}, Python {platform.python_version()}, {versions}{built}"


def processor() -> str:
    """Name the processor's model, or its architecture where the system does not say more."""
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def memory_bytes() -> int | None:
    """Look up the physical memory; None where the system does not say."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") if hasattr(os, "sysconf") else None


@cache
def commit() -> str | None:
    """Name the commit that this package runs from, and whether files differ from it; None outside a git checkout."""
    here = Path(__file__)

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", str(here.parent), *arguments], capture_output=True, text=True, check=True
        ).stdout.strip()

    try:
        # An installation may lie inside somebody else's checkout, which does not hold this file.
        git("ls-files", "--error-unmatch", here.name)
        changed = git("status", "--porcelain", "--untracked-files=no")
        return git("rev-parse", "--short=12", "HEAD") + (" with uncommitted changes" if changed else "")
    except (OSError, subprocess.CalledProcessError):
        return None
