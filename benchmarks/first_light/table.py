"""A run of all stages as one table, in Markdown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from benchmarks.first_light.processes import Record

HEADER = """# First light on {where}

Made by `python -m benchmarks.first_light` on {began}, in {minutes:.1f} minutes.
{machine}

{measured}Contenders take turns in every round; times are medians with quartiles in brackets, *times the package* is the
median of paired rounds. The peers: *naive* makes class maps and masked features, *batched* makes label CAMs and
batched products, the strongest eager formulation we know; both also under torch.compile. A peer is timed only if it
gives the package's loss and gradients. *MB* is the peak memory beyond the inputs, gradients included.

| stage | status | s | found |
| --- | --- | --- | --- |
"""
MEASURED = {
    "cuda": "Measured on the GPU: the device's own time between events, its L2 cache overwritten before every call.\n",
    "cpu": "**Measured on the CPU: nothing here says anything of a GPU.** Caches are as they are.\n",
}
TINY = "**Tiny shapes, to see that everything runs: no time here means anything.**\n"


def render(record: Record) -> str:
    """The page of a run.

    Args:
        record: as `__main__` writes it.
    """
    machine: dict[str, Any] = next((stage["figures"] for stage in record["stages"] if stage["name"] == "machine"), {})
    text = HEADER.format(
        where="a GPU" if record["device"] == "cuda" else "a CPU",
        began=record["began"],
        minutes=record["seconds"] / 60,
        machine=_machine(machine),
        measured=MEASURED[record["device"]] + (TINY if record["tiny"] else ""),
    )
    return text + "".join(f"| {' | '.join(row)} |\n" for stage in record["stages"] for row in _rows(stage))


def _machine(found: dict[str, Any]) -> str:
    if not found:
        return "Machine: not known, its stage found nothing."
    gpu = ""
    if "gpu" in found:
        memory = found["gpu_memory_bytes"] / 2**30
        gpu = f"{found['gpu']}, {memory:.0f} GiB, driver {found['driver'] or 'unknown'}; host: "
    return (
        f"Machine: {gpu}{found['processor']}, {found['threads']} threads. Commit {found['commit'] or 'unknown'}.\n"
        f"Python {found['python']}, torch {found['torch']}, triton {found['triton'] or 'none'}."
    )


def _rows(stage: Record) -> Iterator[tuple[str, ...]]:
    """A row for each line of the stage, and before them one for what kept it from its end."""
    lines = [*([stage["reason"]] if "reason" in stage else []), *stage["lines"]] or [""]
    status = "**failed**" if stage["status"] == "failed" else stage["status"]
    for number, line in enumerate(lines):
        begin = ("", "", "") if number else (stage["name"], status, f"{stage['seconds']:.0f}")
        yield (*begin, " ".join(line.replace("|", "\\|").split()))
