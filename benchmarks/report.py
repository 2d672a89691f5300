"""The report of a run: ``python -m benchmarks.report RUN.json [SCALING.json] [SHARE.json] [TESTS.xml]``.

Takes the JSON of ``pytest benchmarks/ --benchmark-json=RUN.json`` and of `benchmarks.scaling` and `benchmarks.share`,
and the XML of ``pytest benchmarks/ --benchmark-disable --junit-xml=TESTS.xml``, in any order. Writes
``results/cpu.md`` or ``results/cuda.md`` and plots beside it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import plots
from benchmarks.acceptance import judge, losses
from benchmarks.records import Evidence, Measurement, read
from benchmarks.workloads import ALL_PEERS, CONTENDERS, PACKAGE, STEP, title

RESULTS = Path(__file__).parent / "results"
METHOD = """Ratios are medians over rounds in which all contenders take turns, with quartiles in brackets: how many
times as long as `iir_fast` a peer takes, so above 1 `iir_fast` is faster. The peers:

{peers}

Every peer gave the package's loss and gradients before it was timed. *Floor* is the package's time over that of what
no step can do without, in the same rounds: features read twice and their gradient written once, as one and a half
copies of a tensor of their size take it, and the matrix products of both classifiers. *MB* is the peak memory beyond
the inputs, gradients included. *GB/s* is over the bytes that must be moved, as a share of the copy
bandwidth measured in the same run; features that fit in the cache can pass 100 %.
"""
ON_A_GPU = """
Times are the device's own, between two events, its L2 cache overwritten before every call. Convolutions of float32 are
timed as cuDNN has them by default, factors rounded to TF32; in float32 proper they were held to the package's results.
"""


def render(evidence: Evidence, images: Sequence[str]) -> str:
    """The report in Markdown.

    Args:
        evidence: what was measured.
        images: paths of the plots, relative to the report.
    """
    steps = [each for each in evidence.measurements if each.what == STEP]
    operators = [each for each in evidence.measurements if each.what != STEP]
    peers = "\n".join(f"- {peer}: {CONTENDERS[peer]}" for peer in ALL_PEERS)
    sections = [
        f"# Benchmarks on {'a GPU' if evidence.machine['device'] == 'cuda' else 'a CPU'}",
        _provenance(evidence),
        "## Where it loses",
        _losses(evidence.measurements),
    ]
    if evidence.machine["device"] == "cpu":
        sections += ["## What is promised", _verdicts(evidence)]
    method = METHOD.format(peers=peers) + (ON_A_GPU if evidence.machine["device"] == "cuda" else "")
    sections += ["## How it was measured", method]
    sections += [f"![{Path(image).stem.replace('_', ' ')}]({image})" for image in images]
    if steps:
        sections += ["## Whole step, forward and backward", _shapes(steps)]
    if operators:
        sections += ["## Operators, forward and backward (evidence_map: forward)", _shapes(operators)]
    if evidence.scaling:
        sections += ["## Growth", _growth(evidence.scaling)]
    if evidence.shares:
        sections += ["## Share of a real step", _shares(evidence.shares)]
    return "\n\n".join(section.rstrip("\n") for section in sections) + "\n"


def _provenance(evidence: Evidence) -> str:
    machine, commit = evidence.machine, evidence.commit
    gpu = f"{machine['gpu']}, {machine['gpu_memory_bytes'] / 2**30:.0f} GiB; host: " if "gpu" in machine else ""
    memory = f", {machine['memory_bytes'] / 2**30:.0f} GiB" if machine["memory_bytes"] else ""
    dirty = " with uncommitted changes" if commit.get("dirty") else ""
    return (
        f"Made by `python -m benchmarks.report` from a run of {evidence.moment[:10]}.\n"
        f"Machine: {gpu}{machine['processor']}, {machine['threads']} threads{memory}. "
        f"Commit {str(commit.get('id'))[:12]}{dirty}. Python {machine['python']}, torch {machine['torch']}, "
        f"triton {machine['triton'] or 'none'}.{_gpu_state(machine.get('gpu_state'))}"
    )


def _gpu_state(state: dict[str, Any] | None) -> str:
    """A sentence on the GPU's clocks and power at the end of the run, or why they are missing; empty without a GPU."""
    if state is None:
        return ""
    if "missing" in state:
        return f"\nClocks and power of the GPU are missing: {state['missing']}."
    return (
        f"\nAt the end of the run: {state['sm_clock_mhz']} MHz, memory {state['memory_clock_mhz']} MHz, "
        f"{state['power_w']:.0f} of {state['power_limit_w']:.0f} W."
    )


def _losses(measurements: list[Measurement]) -> str:
    lost = losses(measurements)
    if not lost:
        return f"Nowhere: none of the {len(measurements)} shapes is slower than any peer."
    lines = [
        f"- {each.what} {each.name}: {1 / each.ratios[peer].median:.2f} times the time of {peer}" for each, peer in lost
    ]
    return f"Slower than a peer in {len(lost)} comparisons, the worst first:\n\n" + "\n".join(lines)


def _verdicts(evidence: Evidence) -> str:
    words = {True: "pass", False: "**FAIL**", None: "not measured"}
    return _table(("promise", "measured", "verdict"), ((*each[:2], words[each.passed]) for each in judge(evidence)))


def _shapes(measurements: list[Measurement]) -> str:
    peers = [peer for peer in ALL_PEERS if any(peer in each.ratios for each in measurements)]
    with_floor = any("floor" in each.ratios for each in measurements)
    header = ["shape", "ms", *peers, *(["floor"] if with_floor else [])]
    header += ["MB", *(f"MB {peer}" for peer in peers), "GB/s"]
    rows = []
    for each in measurements:
        row = [each.name if each.what == STEP else f"{each.what} {each.name}", f"{1000 * each.seconds[PACKAGE]:.1f}"]
        row += [_ratio(each, peer) for peer in peers]
        if with_floor:
            row.append(f"{1 / each.ratios['floor'].median:.2f}" if "floor" in each.ratios else "-")
        row += [_megabytes(each.extra_peak_bytes.get(name)) for name in (PACKAGE, *peers)]
        rows.append([*row, f"{each.gb_per_s:.1f} ({each.percent_of_copy:.0f} %)"])
    return _table(header, rows)


def _ratio(measurement: Measurement, peer: str) -> str:
    if peer not in measurement.ratios:
        return "-"
    ratio = measurement.ratios[peer]
    return f"{ratio.median:.2f} ({ratio.first_quartile:.2f} to {ratio.third_quartile:.2f})"


def _growth(scaling: dict[str, Any]) -> str:
    introduction = (
        "Exponents p of cost ~ size^p over the largest sizes. Of `subgroup_similarity` naive makes all differences "
        f"[N,N,C] and batched the Gram matrix [N,N]. Budget beyond the inputs: {scaling['budget_bytes'] / 1e9:.0f} GB."
    )
    rows = []
    for curve in scaling["curves"]:
        time, memory = curve["exponents"]["time"], curve["exponents"]["memory"]
        points = "; ".join(
            f"{size:,}: {_seconds(seconds)}, {_megabytes(extra)} MB" for size, seconds, extra in curve["points"]
        )
        end = curve["out_of_memory_at"]
        rows.append(
            (
                curve["name"],
                title(curve["contender"]),
                "-" if time is None else f"{time:.2f}",
                "-" if memory is None else f"{memory:.2f}",
                points + (f"; {end:,}: out of memory" if end else ""),
            )
        )
    return introduction + "\n\n" + _table(("curve", "contender", "time", "memory", "size: median, extra peak"), rows)


def _shares(shares: dict[str, Any]) -> str:
    header = ("backbone", "stride", "batch", "head and loss by", "backbone ms", "head and loss ms", "share")
    rows = []
    for each in shares["shares"]:
        loss, backbone = each["head_and_loss"], each["backbone"]
        by = title(each["contender"])
        times = (f"{1000 * backbone:.0f}", f"{1000 * loss:.1f}", f"{100 * loss / (loss + backbone):.1f} %")
        rows.append((each["name"], str(each["stride"]), str(each["batch"]), by, *times))
    return "Images of 224x224, 1000 classes, untrained weights, forward and backward.\n\n" + _table(header, rows)


def _seconds(seconds: float) -> str:
    return f"{1000 * seconds:.1f} ms" if seconds < 1 else f"{seconds:.2f} s"


def _megabytes(count: int | None) -> str:
    return "-" if count is None else f"{count / 1e6:.0f}" if count >= 1e7 else f"{count / 1e6:.1f}"


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write(evidence: Evidence, folder: Path) -> Path:
    """Write the report and its plots into a folder; returns the report's path."""
    device = evidence.machine["device"]
    drawn = plots.draw(evidence, folder / device)
    path = folder / f"{device}.md"
    path.write_text(render(evidence, [f"{device}/{image.name}" for image in drawn]), encoding="utf-8")
    return path


def main(paths: list[str]) -> None:
    if not paths:
        sys.exit(__doc__)
    evidence = read(map(Path, paths))
    broken = sum(each.passed is False for each in judge(evidence))
    print(f"Report in {write(evidence, RESULTS).name}; {broken} promises broken.")


if __name__ == "__main__":
    main(sys.argv[1:])
