"""The fuzzer notices what it is for, and finds nothing in a few inputs of some targets; CI runs it for longer."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random

import pytest

from iir_fast.app.files import read_object
from tests.fuzz.mutate import STRUCTURED, mutate
from tests.fuzz.watch import Breach, Watch, objection


def test_sentences_of_ours_are_no_findings(tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_text("{")
    for file in ("none.json", "bad.json"):
        with pytest.raises((ValueError, OSError)) as caught:
            read_object(tmp_path / file)
        assert objection(caught.value) is None


@pytest.mark.parametrize(
    ("fail", "words"),
    [
        (lambda: {}["a"], "KeyError at test_fuzz.py"),
        (lambda: json.loads("{"), "JSONDecodeError of a library, at decoder.py"),
        (lambda: b"\xff".decode(), "UnicodeDecodeError of a library"),
        (lambda: bytearray(-1), "ValueError of a library"),
    ],
)
def test_what_is_no_sentence_of_ours_is_a_finding(fail: Callable[[], object], words: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        fail()
    assert words in str(objection(caught.value))


@pytest.mark.parametrize(
    ("does", "words"),
    [
        (lambda folder: (folder / "in" / "a").write_text("x"), ""),
        (lambda folder: (folder / "b").write_text("x"), "writes"),
        (lambda folder: (folder / "in" / ".." / "b").write_text("x"), "writes"),
        (lambda folder: (folder / "kept").rename(folder / "in" / "c"), "os.rename"),
        (lambda folder: (folder / "kept").unlink(), "os.remove"),
        (lambda folder: os.system("true"), "os.system"),
        (lambda folder: subprocess.run([sys.executable, "-V"], check=True), "subprocess.Popen"),
    ],
)
def test_what_goes_beyond_the_folder_is_stopped(does: Callable[[Path], object], words: str, tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "kept").write_text("mine")
    reader, writer = os.pipe()
    if (pid := os.fork()) == 0:  # a watch stays for good
        try:
            does_not = Watch(tmp_path / "in")
            does(tmp_path)
        except Breach:
            os.write(writer, does_not.breaches[0].encode())
        finally:
            os._exit(0)
    os.waitpid(pid, 0)
    os.close(writer)
    with os.fdopen(reader) as said:
        assert said.read().startswith(words) if words else not said.read()
    assert (tmp_path / "kept").read_text() == "mine"
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("suffix", STRUCTURED)
def test_the_same_seed_breaks_a_file_in_the_same_way(suffix: str) -> None:
    content = b'{"a": [1, 2, {"b": "c,d"}]}\n' * (1 if suffix == ".json" else 3)
    made = [[mutate(f"x{suffix}", content, Random(f"{seed}")) for seed in range(30)] for _ in range(2)]
    assert made[0] == made[1]
    assert len(set(made[0])) > 10


@pytest.mark.slow
def test_a_few_inputs_find_nothing(start_python: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parents[2])
    targets = ("details", "recipes", "shards", "confidence")
    said = start_python("-m", "tests.fuzz", "--seconds", 1, *targets).finish().stdout  # type: ignore[attr-defined]
    assert [line.partition(":")[0] for line in said.splitlines() if " inputs in " in line] == list(targets)
