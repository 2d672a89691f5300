"""Options out of YAML: numbers as people write them, and what is refused."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from iir_fast.training import from_options, read_yaml

BOMB = ", ".join(f"&a{i + 1} [*a{i}, *a{i}, *a{i}, *a{i}]" for i in range(12))


@dataclass(frozen=True)
class Record:
    rate: float = 1.0
    count: int | None = 1
    flag: bool = False
    kind: Literal["a", "b"] = "a"
    folder: Path | None = None
    pair: tuple[float, int] = (0.5, 1)

    def __post_init__(self) -> None:
        if self.rate < 0:
            raise ValueError(f"rate is {self.rate}; accepted is 0 or more.")


def test_values_take_the_types_of_the_options():
    options = read_yaml("{rate: 2, count: null, flag: true, kind: b, folder: a/b, pair: [1, 3]}", "x")
    record = from_options(Record, options, "x")
    assert record == Record(2.0, None, True, "b", Path("a/b"), (1.0, 3))
    assert [type(value) for value in (record.rate, record.pair[0])] == [float, float]
    assert from_options(Record, {}, "x") == Record()


@pytest.mark.parametrize(("text", "value"), [("1e-3", 1e-3), ("-2E5", -2e5), ("1.5e-3", 1.5e-3), (".5", 0.5)])
def test_numbers_need_no_point(text, value):
    assert read_yaml(f"rate: {text}", "x") == {"rate": value}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rate: fast", "file.yaml: rate is 'fast'; accepted is a number."),
        ("rate: true", "rate is True; accepted is a number."),
        ("rate: -1", "file.yaml: rate is -1.0; accepted is 0 or more."),
        ("count: 1.5", "count is 1.5; accepted is a whole number or null."),
        ("flag: 1", "flag is 1; accepted is true or false."),
        ("kind: c", "kind is 'c'; accepted is a, b."),
        ("folder: 3", "folder is 3; accepted is text or null."),
        ("pair: [1]", r"pair is \[1\]; accepted is \[a number, a whole number\]."),
        (
            r'{"spe\ned": 1}',
            r"file.yaml names 'spe\\ned'; known options are count",
        ),
        (
            "{speed: 1, rite: 2}",
            "file.yaml names rite, speed; known options are count, flag, folder, kind, pair, rate.",
        ),
        ("rate", "file.yaml holds no mapping of options to values."),
        ("{", "file.yaml is no YAML: .* line 1"),
        # What the parser's own constructors stumble over, each over another error.
        ("rate: 2020-13-45", "file.yaml is no YAML: month must be in 1..12"),
        ("rate: !!int x", "file.yaml is no YAML: invalid literal"),
        ("rate: !!timestamp x", "file.yaml is no YAML: "),
        ("{" * 3000, "file.yaml is no YAML: maximum recursion depth exceeded"),
        ("rate: " + "9" * 5000, "file.yaml is no YAML: "),
        ("rate: " + "9" * 400, "file.yaml: rate is 9+; accepted is a number."),
        ("rate: &a [*a]", "file.yaml unfolds to more than 100,000 values; write out what it repeats by aliases."),
        (f"pair: [&a0 [1], {BOMB}]", "file.yaml unfolds to more"),
    ],
    ids=lambda each: each[:20],
)
def test_faults_are_named(text, words):
    with pytest.raises(ValueError, match=words):
        from_options(Record, read_yaml(text, "file.yaml"), "file.yaml")
