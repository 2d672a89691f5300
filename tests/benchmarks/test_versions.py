"""Which versions of Triton are tried, and how what comes of each is read; none is fetched or compiled with here."""

from __future__ import annotations

import re
import stat
import subprocess
import zipfile
from importlib import import_module
from importlib.metadata import requires
from pathlib import Path

import pytest

pytest.importorskip("triton")

from benchmarks import versions
from benchmarks.examples import examples
from benchmarks.versions import NotFetchedError, Outcome, choose, count_tests

TESTED = {"passed": 130, "failed": 2, "error": 1, "skipped": 4}


def test_the_oldest_version_is_the_one_that_the_package_admits():
    (bound,) = (re.match(r"triton>=([\d.]+)", each) for each in requires("iir-fast") or () if each.startswith("triton"))
    assert bound is not None
    oldest, *others = versions.VERSIONS
    assert oldest == f"{bound[1]}.0"
    assert [*map(_numbers, others)] == sorted(map(_numbers, others))


def _numbers(version: str) -> list[int]:
    return [int(part) for part in version.split(".")]


def test_without_a_name_it_takes_all_or_the_ends_of_those_that_are_not_installed():
    assert choose([], False, "3.8.0") == list(versions.VERSIONS)
    assert choose([], True, "3.8.0") == ["3.5.0", "3.9.0"]
    assert choose([], True, "3.9.0") == ["3.5.0", "3.8.0"]
    assert choose([], True, "3.5.0") == ["3.5.1", "3.9.0"]
    assert choose(["3.7.0"], True, "3.7.0") == ["3.7.0"]


def test_few_shapes_launch_every_kernel():
    launched = {
        (example.operator, launch.kernel.fn.__name__)
        for shape in versions.QUICK_SHAPES
        for example in examples(shape, "meta")
        for launch in example.plan()
    }
    defined = {
        (operator, name)
        for operator in {operator for operator, _ in launched}
        for name, value in vars(import_module(f"iir_fast.kernels.{operator}.triton")).items()
        if name.endswith("_kernel") and hasattr(value, "fn")
    }
    assert defined <= launched, "those of kernels.tiles come on top"


@pytest.mark.parametrize(
    ("output", "counts"),
    [
        ("FAILED a::b\n130 passed, 337 skipped, 55 warnings in 230.79s (0:03:50)\n", {"passed": 130, "skipped": 337}),
        ("...\n2 failed, 130 passed, 4 skipped, 1 error in 3.21s\n\n", TESTED),
        ("==== 1 passed, 2 errors in 0.01s ====", {"passed": 1, "error": 2}),
        ("no tests ran in 0.01s", {}),
        ("", {}),
    ],
)
def test_the_closing_line_of_pytest(output, counts):
    assert count_tests(output) == counts


def test_the_table_has_a_row_for_each_version():
    outcomes = [
        Outcome("3.5.0", 168, 2, ["a has 2 atomics.", "b has 1 atomics.", "c does not compile"], TESTED, ["FAILED d"]),
        Outcome("3.7.0", problems=["cannot be fetched"]),
    ]
    introduction, *rows = versions.render(outcomes).split("\n| ")
    assert "nothing ran on a GPU" in introduction.replace("\n", " ")
    assert rows[2].rstrip("|\n ") == "3.5.0 | 2.9.0 | 168 | 3 | 2 | 130 | 3 | 4"
    assert rows[3].rstrip("|\n ") == "3.7.0 | - | 0 | 0 | 0 | 0 | 0 | 0"
    assert len(rows) == 4
    assert rows[0].count("|") == rows[2].count("|")


def test_a_registry_that_does_not_answer_is_told_from_one_that_does_not_have_it():
    unreachable = "WARNING: Retrying after NameResolutionError\nERROR: No matching distribution found for triton==3.5.0"
    assert "no network" in versions.why_not_fetched(unreachable)
    missing = versions.why_not_fetched("ERROR: from versions: 3.6.0\nERROR: No matching distribution found\n")
    assert missing == "cannot be fetched: ERROR: No matching distribution found"
    assert versions.why_not_fetched("Killed") == "cannot be fetched: Killed"


def test_pip_is_asked_for_what_the_cache_lacks(tmp_path, monkeypatch):
    asked = []

    def pip(command, **options):
        asked.append(command)
        if command[-1] != "triton==3.6.0":
            return subprocess.CompletedProcess(command, 1, "", "ERROR: No matching distribution found\n")
        with zipfile.ZipFile(Path(command[command.index("-d") + 1]) / "triton.whl", "w") as wheel:
            program = zipfile.ZipInfo("triton/bin/ptxas")
            program.external_attr = 0o100755 << 16
            wheel.writestr(program, "assembles")
            wheel.writestr("triton/__init__.py", "")
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    folder = versions.fetch("3.6.0", tmp_path)
    assert (folder / "triton/bin/ptxas").read_text(encoding="utf-8") == "assembles"
    assert (folder / "triton/bin/ptxas").stat().st_mode & stat.S_IXUSR
    assert not (folder / "triton/__init__.py").stat().st_mode & stat.S_IXUSR
    assert versions.fetch("3.6.0", tmp_path) == folder
    assert len(asked) == 1
    with pytest.raises(NotFetchedError, match="cannot be fetched"):
        versions.fetch("3.5.0", tmp_path)
    assert list(tmp_path.iterdir()) == [folder], "nothing is left of what was not fetched"


def test_the_other_version_comes_before_what_is_installed(tmp_path):
    environment = versions.environment_for(tmp_path / "triton", {"PYTHONPATH": "mine", "HOME": "here"})
    assert environment["PYTHONPATH"] == f"{tmp_path / 'triton'}:mine"
    assert environment["HOME"] == "here"
    assert versions.environment_for(tmp_path, {})["PYTHONPATH"] == str(tmp_path)


@pytest.mark.parametrize(
    ("outcome", "code"),
    [
        (Outcome("3.6.0", 168, tests={"passed": 130}), 0),
        (Outcome("3.6.0", 168, 1, [], {"passed": 130}), 0),
        (Outcome("3.6.0", 168, 0, ["a does not compile: b"], {"passed": 130}), 1),
        (Outcome("3.6.0", 168, tests={"passed": 129, "failed": 1}, problems=["FAILED d"]), 1),
        (Outcome("3.6.0", problems=["was not tried: there is no network to fetch it."]), 1),
    ],
    ids=["sound", "a spill", "a fault", "a failed test", "no network"],
)
def test_any_fault_is_said_and_ends_in_failure(outcome, code, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(versions, "attempt", lambda version, cache, quick: outcome)
    monkeypatch.setattr(versions, "RESULTS", tmp_path / "versions.md")
    assert versions.main(["3.6.0"]) == code
    printed = capsys.readouterr().out
    assert all(f"Triton 3.6.0: {each}" in printed for each in outcome.faults + outcome.problems)
    assert f"variants compiled, all targets {outcome.variants}, " in printed
    assert not list(tmp_path.iterdir()), "a table of some versions would replace that of all"
    assert versions.main([]) == code
    assert (tmp_path / "versions.md").read_text(encoding="utf-8").count("\n| 3.6.0 |") == len(versions.VERSIONS)


def _attempt(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, compiled: str, tested: str) -> Outcome:
    """What is made of a version in which the two processes run that Python."""
    scripts = iter([compiled, tested])
    start = versions.start
    monkeypatch.setattr(versions, "fetch", lambda version, cache: tmp_path)
    monkeypatch.setattr(versions, "start", lambda arguments, environment: start(["-c", next(scripts)], environment))
    return versions.attempt("3.6.0", tmp_path, quick=True)


COMPILED = """print('a compiler talks\\n{"variants": 2, "spills": 1, "faults": ["a has 1 atomics."]}')"""


def test_both_processes_are_heard(monkeypatch, tmp_path):
    script = "print('FAILED d - because\\n1 failed, 3 passed in 1s'); raise SystemExit(1)"
    outcome = _attempt(monkeypatch, tmp_path, COMPILED, script)
    assert outcome == Outcome("3.6.0", 2, 1, ["a has 1 atomics."], {"failed": 1, "passed": 3}, ["FAILED d - because"])


@pytest.mark.parametrize(
    ("compiled", "tested", "problem"),
    [
        ("raise SystemExit('it fell over')", "print('3 passed in 1s')", "compiles ended with 1: it fell over"),
        (COMPILED, "raise SystemExit('no such option')", "pytest ended with 1: no such option"),
        (COMPILED, "print('4 skipped in 1s')", "pytest ended with 0: 4 skipped"),
    ],
)
def test_a_process_that_comes_to_nothing_is_a_fault(monkeypatch, tmp_path, compiled, tested, problem):
    (found,) = _attempt(monkeypatch, tmp_path, compiled, tested).problems
    assert problem in found


def test_a_version_that_is_not_there_is_a_fault(monkeypatch, tmp_path):
    def fetch(version, cache):
        raise NotFetchedError("cannot be fetched: it is not there")

    monkeypatch.setattr(versions, "fetch", fetch)
    outcome = versions.attempt("3.6.0", tmp_path, quick=False)
    assert outcome == Outcome("3.6.0", problems=["cannot be fetched: it is not there"])
