"""The first minutes on a new machine: ``python -m benchmarks.first_light [--device cuda|cpu] [--tiny] [--out FOLDER]``.

Are the operators right there, how fast is a training step beside its peers, and does it run in CUDA graphs, mixed
precision, DistributedDataParallel and torch.compile: all in eight minutes, without a network, and with nothing beside
the package but torch, triton, numpy and pytest (``pip install --no-deps --no-build-isolation -e .``).

Every stage has a process and a time limit of its own: a failure, be it a crash of the driver, costs that stage alone.
Writes benchmarks/results/gpu.json and gpu.md on a GPU; on a CPU, and with --tiny, into ./first_light. The exit status
is 1 if a stage failed, 0 if every one ran or had a reason not to.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

from benchmarks.first_light.processes import Command, Record, keep, run
from benchmarks.first_light.table import render

RESULTS, ELSEWHERE = Path(__file__).parents[1] / "results", Path("first_light")
STEMS = {"cuda": "gpu", "cpu": "first_light_cpu"}
"""Device -> name of the files; what a CPU gave never takes a GPU's place."""
MINUTES = 8.0
SHARES = {
    "machine": 30,
    "doctor": 45,
    "step_stride16": 65,
    "step_vgg16": 65,
    "step_7x7": 65,
    "graph": 25,
    "precision": 30,
    "host": 25,
    "compiled": 40,
    "ddp": 25,
    "operators": 65,
}
"""Stage -> its part of the time, in seconds of eight minutes; what it leaves is there for those after it.

What matters most comes first. The tests, which the doctor stands for, come last: they can fill whatever is left.
"""


def command_of(device: str, tiny: bool) -> Command:
    """What starts a stage: this program again."""

    def command(name: str, path: Path) -> list[str]:
        stage = ["--stage", name, "--record", str(path), "--device", device, *(["--tiny"] if tiny else [])]
        return [sys.executable, "-m", "benchmarks.first_light", *stage]

    return command


def conduct(device: str, tiny: bool, minutes: float, out: Path) -> bool:
    """Run all stages, say how it goes, write record and table; whether no stage failed.

    Args:
        device: "cpu" or "cuda".
        tiny: as `Setting` has it.
        minutes: for everything together.
        out: folder for the two files.
    """
    out.mkdir(parents=True, exist_ok=True)
    json_path, table_path = (out / f"{STEMS[device]}.{suffix}" for suffix in ("json", "md"))
    stages: list[Record] = []
    record: Record = {"kind": "first_light", "device": device, "tiny": tiny, "minutes": minutes, "stages": stages}
    record["began"], start = datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"), time.monotonic()
    _say(f"First light on {device}: {len(SHARES)} stages within {minutes:g} minutes.")
    for stage in run(SHARES, command_of(device, tiny), 60 * minutes):
        reason = f": {stage['reason']}" if "reason" in stage else ""
        _say(f"{stage['name']}: {stage['status']} in {stage['seconds']:.0f} s{reason}")
        for line in stage["lines"]:
            _say(f"    {line}")
        stages.append(stage)
        record["seconds"] = round(time.monotonic() - start, 1)
        # After every stage: who must stop early has what was found until then.
        json_path.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        table_path.write_text(render(record), encoding="utf-8")
    failed = [stage["name"] for stage in stages if stage["status"] == "failed"]
    _say(f"{'Failed: ' + ', '.join(failed) if failed else 'Nothing failed'}. See {table_path} and {json_path.name}.")
    return not failed


def _say(line: str) -> None:
    print(line, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run everything, or one stage in this process."""
    import torch  # not above: tests of what is here go without it

    usable = torch.cuda.is_available()
    about = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.first_light", description=__doc__, formatter_class=about
    )
    parser.add_argument("--device", choices=STEMS, default="cuda" if usable else "cpu", help="default: %(default)s")
    parser.add_argument("--tiny", action="store_true", help="tiny shapes, few rounds: to see that everything runs")
    parser.add_argument("--minutes", type=float, default=MINUTES, help="for everything together; default: %(default)g")
    parser.add_argument("--out", type=Path, help="folder for the two files")
    parser.add_argument("--stage", choices=SHARES, help="run this one here and now, and print its record")
    parser.add_argument("--record", type=Path, help="with --stage: write the record into this file instead")
    given = parser.parse_args(arguments)
    if given.device == "cuda" and not usable:
        parser.error("--device is cuda, and torch finds no CUDA or ROCm device; accepted here is cpu.")
    if not given.minutes > 0:
        parser.error(f"--minutes is {given.minutes:g}; accepted is a number above 0.")
    if given.stage is None:
        out = given.out or (ELSEWHERE if given.device == "cpu" or given.tiny else RESULTS)
        sys.exit(0 if conduct(given.device, given.tiny, given.minutes, out) else 1)

    from benchmarks.first_light.setting import Setting
    from benchmarks.first_light.stages import STAGES

    record = keep(STAGES[given.stage](Setting(given.device, given.tiny)), given.record)
    if given.record is None:
        print(json.dumps(record, indent=1))
    sys.exit(1 if record["status"] == "failed" else 0)


if __name__ == "__main__":
    main()
