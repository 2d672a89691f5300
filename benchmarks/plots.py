"""Plots of a report, PNG."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")  # no screen is needed

import matplotlib.pyplot as plt
from matplotlib.axes import Axes

from benchmarks.records import Evidence, Measurement
from benchmarks.workloads import ALL_PEERS, CONTENDERS, MAPS, PACKAGE, STEP, title

COLORS = {
    PACKAGE: "#000000",
    "naive": "#d55e00",
    "naive_compiled": "#e69f00",
    "batched": "#0072b2",
    "batched_compiled": "#56b4e9",
}
"""Told apart with any colour vision (Okabe and Ito)."""
DPI = 130


def draw(evidence: Evidence, folder: Path) -> list[Path]:
    """Draw what the evidence suffices for, the plot for the README first; returns the files."""
    folder.mkdir(parents=True, exist_ok=True)
    steps = [each for each in evidence.measurements if each.what == STEP]
    drawn = []
    if steps:
        usual = {key: steps[0].shape[key] for key in ("batch", "classes", "dtype", "channels_last")}
        same = [each for each in steps if usual.items() <= each.shape.items()]
        drawn.append(save(_step_speedup(same), folder / "step_speedup.png"))
        drawn.append(save(_all_shapes(steps), folder / "step_shapes.png"))
    if evidence.scaling:
        drawn.append(save(_growth(evidence.scaling["curves"]), folder / "scaling.png"))
    return drawn


def save(figure: Any, path: Path) -> Path:
    """Write a figure and forget it."""
    # No software version in the file: it would change with every run.
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
    return path


def _step_speedup(measurements: list[Measurement]) -> Any:
    """Bars of the speed-up over every peer, a group per map."""
    figure, axes = plt.subplots(figsize=(8, 4), layout="constrained")
    peers = [peer for peer in ALL_PEERS if all(peer in each.ratios for each in measurements)]
    width = 0.8 / len(peers)
    for number, peer in enumerate(peers):
        ratios = [each.ratios[peer] for each in measurements]
        places = [group + (number - (len(peers) - 1) / 2) * width for group in range(len(measurements))]
        heights = [ratio.median for ratio in ratios]
        spread = [
            [ratio.median - ratio.first_quartile for ratio in ratios],
            [ratio.third_quartile - ratio.median for ratio in ratios],
        ]
        label = f"{peer}: {CONTENDERS[peer]}" if peer in ("naive", "batched") else peer
        bars = axes.bar(places, heights, width, yerr=spread, color=COLORS[peer], label=label, capsize=2)
        axes.bar_label(bars, [f"{height:.1f}" for height in heights], fontsize=8, padding=2)
    axes.set_xticks(range(len(measurements)), [_map_name(each) for each in measurements])
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.margins(y=0.15)
    axes.axhline(1, color="black", linewidth=0.8)
    axes.set_ylabel("times as fast as the peer")
    shape = measurements[0].shape
    words = f"batch {shape['batch']}, {shape['classes']} classes, {shape['dtype']}"
    axes.set_title(f"iir_fast, head and loss, forward and backward: {words}", fontsize=10)
    figure.legend(loc="outside lower center", fontsize=8, frameon=False, ncols=2)
    plain(axes)
    return figure


def _all_shapes(measurements: list[Measurement]) -> Any:
    """Speed-up and memory of every shape, against the naive and the batched peer, with a line where nobody wins."""
    figure, (speed, memory) = plt.subplots(
        1, 2, figsize=(11, 1.2 + 0.2 * len(measurements)), sharey=True, layout="constrained"
    )
    places = range(len(measurements))
    for peer in ("naive", "batched"):
        label = f"{peer}: {CONTENDERS[peer]}"
        speed.scatter(
            [each.ratios[peer].median for each in measurements], places, s=16, color=COLORS[peer], label=label
        )
        ratios = [each.memory_ratio(peer) or float("nan") for each in measurements]
        memory.scatter(ratios, places, s=16, color=COLORS[peer])
    for axes, words in ((speed, "times as fast as the peer"), (memory, "peer's extra memory / package's")):
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter("{x:g}")
        axes.axvline(1, color="black", linewidth=0.8)
        axes.set_xlabel(words)
        axes.grid(axis="y", linewidth=0.3)
        plain(axes)
    speed.set_yticks(places, [each.name for each in measurements], fontsize=7)
    speed.invert_yaxis()
    figure.legend(loc="outside upper center", fontsize=8, frameon=False, ncols=2)
    return figure


def _growth(curves: list[dict[str, Any]]) -> Any:
    """Time and memory against size, a column per curve."""
    names = list(dict.fromkeys(curve["name"] for curve in curves))
    figure, grid = plt.subplots(2, len(names), figsize=(4 * len(names), 6), squeeze=False, layout="constrained")
    for column, name in enumerate(names):
        for curve in (each for each in curves if each["name"] == name and each["points"]):
            contender = curve["contender"]
            sizes, seconds, extra = zip(*curve["points"], strict=True)
            style = {"color": COLORS[contender], "marker": "o", "markersize": 3}
            grid[0][column].plot(sizes, seconds, label=title(contender), **style)
            grid[1][column].plot(sizes, [(each or float("nan")) / 1e6 for each in extra], **style)
            if curve["out_of_memory_at"]:
                for row, last in ((0, seconds[-1]), (1, (extra[-1] or float("nan")) / 1e6)):
                    grid[row][column].annotate(
                        "out of memory", (sizes[-1], last), fontsize=7, xytext=(4, 4), textcoords="offset points"
                    )
        grid[0][column].set_title(name, fontsize=10)
        for row, words in enumerate(("seconds", "extra peak memory, MB")):
            grid[row][column].set(xscale="log", yscale="log", xlabel=name.rpartition(" ")[2], ylabel=words)
            longest = max((curve["points"] for curve in curves if curve["name"] == name), key=len)
            grid[row][column].set_xticks([size for size, _, _ in longest][:: 2 if len(longest) > 4 else 1])
            grid[row][column].xaxis.set_major_formatter("{x:,g}")
            grid[row][column].xaxis.minorticks_off()
            plain(grid[row][column])
    figure.legend(
        *grid[0][0].get_legend_handles_labels(), loc="outside lower center", fontsize=8, frameon=False, ncols=3
    )
    return figure


def _map_name(measurement: Measurement) -> str:
    size = (measurement.shape["channels"], measurement.shape["side"])
    network = next((name for name, each in MAPS.items() if each == size), "")
    return f"{network}\n{size[1]}x{size[1]}, C {size[0]}"


def plain(axes: Axes) -> None:
    """No frame above and to the right."""
    axes.spines[["top", "right"]].set_visible(False)
