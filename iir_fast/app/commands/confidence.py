"""`iir-fast confidence`."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import tyro
from numpy.typing import NDArray
from rich.console import Console

from iir_fast.app.tables import tabulate

if TYPE_CHECKING:
    from iir_fast.app.details import JudgedImage
    from iir_fast.evaluation import Interval, PairedTest


@dataclass(frozen=True)
class Confidence:
    """Print 95 % confidence intervals of an evaluation, or test whether two differ on the same images.

    GT-known and Top-1 Loc are those at the threshold that the evaluation used. Intervals are those of the bootstrap
    over images, p-values those of McNemar's exact test.
    """

    first: tyro.conf.Positional[Path]
    """Folder that `evaluate --details` or `score --details` wrote, or its images.csv."""
    second: tyro.conf.Positional[Path | None] = None
    """Another one, of the same images; maps of the same name are compared, or the only map of each."""
    seed: int = 0
    """Seed of the bootstrap."""
    json: bool = False
    """Print JSON in place of the table: every digit."""

    def run(self) -> None:
        from iir_fast.app.details import read_images
        from iir_fast.evaluation import bootstrap_interval, paired_test

        if self.seed < 0:
            raise ValueError(f"seed is {self.seed}; accepted is a whole number of 0 or more.")
        first = read_images(self.first)
        if self.second is None:
            intervals = {
                name: {figure: bootstrap_interval(correct, self.seed) for figure, correct in _figures(images).items()}
                for name, images in first.items()
            }
            self._print_intervals(intervals)
            return
        tests = {}
        for name, (one, other) in _pairs(first, read_images(self.second)).items():
            _check_same(one, other, f"{self.first} and {self.second}, {name} map")
            figures, others = _figures(one), _figures(other)
            shared = [figure for figure in figures if figure in others]
            tests[name] = {figure: paired_test(figures[figure], others[figure], self.seed) for figure in shared}
        self._print_tests(tests)

    def _print_intervals(self, intervals: Mapping[str, Mapping[str, Interval]]) -> None:
        if self.json:
            print(json.dumps({name: {key: asdict(each) for key, each in of.items()} for name, of in intervals.items()}))
            return
        rows = [[name, figure, _text(each)] for name, of in intervals.items() for figure, each in of.items()]
        Console().print(tabulate(("map", "metric", "% [95 % interval]"), rows, "Over images", text_columns=2))

    def _print_tests(self, tests: Mapping[str, Mapping[str, PairedTest]]) -> None:
        if self.json:
            print(json.dumps({name: {key: asdict(each) for key, each in of.items()} for name, of in tests.items()}))
            return
        rows = [
            [
                *(name, figure, f"{each.first.value:.1f}", f"{each.second.value:.1f}", _text(each.difference, "+")),
                *(f"{each.only_first} / {each.only_second}", f"{each.p_value:.2g}"),
            ]
            for name, of in tests.items()
            for figure, each in of.items()
        ]
        header = ("map", "metric", "first", "second", "difference", "right alone", "p")
        title = "In %, difference with its 95 % interval, images that one alone has right"
        Console().print(tabulate(header, rows, title, text_columns=2))


def _text(interval: Interval, sign: str = "") -> str:
    return f"{interval.value:{sign}.1f} [{interval.low:{sign}.1f}, {interval.high:{sign}.1f}]"


def _figures(images: Sequence[JudgedImage]) -> dict[str, NDArray[np.bool_]]:
    """Tell of each image, in the order of their names, whether it is right: for the accuracy of all, or of those with
    boxes."""
    images = sorted(images)
    boxed = [each for each in images if each.is_localized is not None]
    figures = {"GT-known Loc": [bool(each.is_localized) for each in boxed]}
    if all(each.is_classified is not None for each in images):
        figures["Top-1 Loc"] = [bool(each.is_localized and each.is_classified) for each in boxed]
        figures["Top-1 Cls"] = [bool(each.is_classified) for each in images]
    return {name: np.array(correct, np.bool_) for name, correct in figures.items() if correct}


def _pairs(
    first: Mapping[str, Sequence[JudgedImage]], second: Mapping[str, Sequence[JudgedImage]]
) -> dict[str, tuple[Sequence[JudgedImage], Sequence[JudgedImage]]]:
    if len(first) == len(second) == 1:
        [(name, one)], [other] = first.items(), second.values()
        return {name: (one, other)}
    shared = [name for name in first if name in second]
    if not shared:
        raise ValueError(
            f"first has maps {', '.join(first)}, second {', '.join(second)}; one of the same name is needed."
        )
    return {name: (first[name], second[name]) for name in shared}


def _check_same(one: Sequence[JudgedImage], other: Sequence[JudgedImage], where: str) -> None:
    def known(images: Sequence[JudgedImage]) -> set[tuple[str, str, bool]]:
        return {(each.image, each.name, each.is_localized is None) for each in images}

    if differing := known(one) ^ known(other):
        image = min(differing)[0]
        raise ValueError(f"{where}: {image!r} is not in both with one class and box; the same images are accepted.")
