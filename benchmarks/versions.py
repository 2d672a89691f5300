"""Every Triton that pyproject.toml admits, in turn: ``python -m benchmarks.versions [--quick] [VERSION ...]``.

pip fetches each version into a cache, from where it stands before the installed one in processes of its own. There
every launch of every operator is compiled for the GPUs of `benchmarks.compiled` at `SHAPES`, and the tests of the
operators run in that Triton's interpreter. A fault is a launch that does not compile, an atomic, a test that fails, and
a version that cannot be tried. A spill is counted and no fault: such a kernel is right, and slower than it could be;
`benchmarks.resources` admits none for the installed version. Without VERSION it takes all of `VERSIONS` and writes
``results/versions.md``; with ``--quick``, for CI, some shapes and tests of the oldest and the newest of them that are
not the installed one, and writes nothing. Figures stand for what was compiled and interpreted: no GPU is needed.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version as installed
from pathlib import Path

import torch
import triton

from benchmarks.compiled import TARGETS, compile_launch, read_resources
from benchmarks.examples import Shape, examples

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "versions.md"
CACHE = Path.home() / ".cache" / "iir_fast"
VERSIONS = {
    "3.5.0": "2.9.0",
    "3.5.1": "2.9.1",
    "3.6.0": "2.10, 2.11",
    "3.7.1": "2.12.1, 2.13",
    "3.8.0": "2.14",
    "3.9.0": "2.15",
}
"""Triton -> the torch that comes with it. The oldest is what pyproject.toml admits; then the newest of every minor."""
SHAPES = [
    Shape(64, 512, 7, torch.bfloat16, False),
    Shape(64, 2048, 14, torch.bfloat16, True),
    Shape(64, 512, 28, torch.float32, False),
]
QUICK_SHAPES = SHAPES[:2]
"""These launch every kernel there is."""
TESTS = ["tests/kernels"]
# Every operator, forward and backward, in every precision, and in other layouts than the usual.
QUICK_TESTS = ["tests/kernels/test_operators.py", "-k", "float64_reference or low_precision or strides"]
NO_NETWORK = re.compile("NewConnection|NameResolution|ConnectTimeout|ProxyError|Network is unreachable")
INTRODUCTION = """# Versions of Triton

Made by `python -m benchmarks.versions` on Python {python} with torch {torch}, beside which each version stood in turn:
compiled and interpreted, nothing ran on a GPU. Compiled is every launch of every operator at {shapes}, for {targets};
launches with the same code are one variant, and a fault is one that does not compile or has atomics. What spills runs
right, and slower than it could. The tests are those of the operators (`tests/kernels`) in that version's interpreter.

"""
COLUMNS = [
    "Triton",
    "comes with torch",
    "variants compiled, all targets",
    "faults",
    "variants that spill",
    "tests passed",
    "failed",
    "skipped",
]


class NotFetchedError(RuntimeError):
    """Why pip did not give a version, in one sentence."""


@dataclass(frozen=True)
class Outcome:
    """What became of one version of Triton."""

    version: str
    variants: int = 0
    spills: int = 0
    faults: list[str] = field(default_factory=list)
    """Of what was compiled."""
    tests: dict[str, int] = field(default_factory=dict)
    """"passed", "failed", "error", "skipped" -> how many tests."""
    problems: list[str] = field(default_factory=list)
    """Tests that failed, and what kept the version from being tried."""

    def row(self) -> list[str]:
        """Its cells under `COLUMNS`."""
        failed = self.tests.get("failed", 0) + self.tests.get("error", 0)
        counts = [self.variants, len(self.faults), self.spills]
        counts += [self.tests.get("passed", 0), failed, self.tests.get("skipped", 0)]
        return [self.version, VERSIONS.get(self.version, "-"), *map(str, counts)]


def choose(named: Sequence[str], quick: bool, present: str) -> list[str]:
    """Which versions to try: those that were named, else all, else the ends of those that are not `present`."""
    if named:
        return list(named)
    if not quick:
        return list(VERSIONS)
    others = [version for version in VERSIONS if version != present]
    return [others[0], others[-1]]


def fetch(version: str, cache: Path) -> Path:
    """Have pip download a version, unless the cache holds it.

    Returns:
        The folder to put on Python's path.

    Raises:
        NotFetchedError: pip found none for this Python, or there is no network.
    """
    folder = cache / f"triton-{version}-{sys.implementation.cache_tag}"
    if folder.exists():
        return folder
    cache.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=cache) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
        pip = subprocess.run(
            [*command, "-d", scratch, f"triton=={version}"], capture_output=True, text=True, check=False
        )
        if pip.returncode:
            raise NotFetchedError(why_not_fetched(pip.stderr))
        (wheel,) = Path(scratch).glob("*.whl")
        unpack(wheel, Path(scratch) / "unpacked")
        # Under its name only when it is whole.
        (Path(scratch) / "unpacked").rename(folder)
    return folder


def why_not_fetched(errors: str) -> str:
    """Tell a registry that was not reached from one that does not have what was asked for."""
    if NO_NETWORK.search(errors):
        return "was not tried: there is no network to fetch it."
    reasons = [line for line in errors.splitlines() if line.startswith("ERROR")]
    return f"cannot be fetched: {reasons[-1] if reasons else errors.strip()[-500:]}"


def unpack(wheel: Path, folder: Path) -> None:
    """Unpack a wheel as pip would: ptxas and its like stay programs."""
    with zipfile.ZipFile(wheel) as archive:
        for member in archive.infolist():
            file = Path(archive.extract(member, folder))
            if member.external_attr >> 16 & 0o100:
                file.chmod(0o755)


def compile_here(expected: str, shapes: Iterable[Shape]) -> None:
    """Compile every launch with the Triton of this process and print what an `Outcome` holds of it, in JSON."""
    torch.set_num_threads(1)
    assert triton.__version__ == expected, f"Triton {triton.__version__} from {triton.__file__} is in the way."
    variants: dict[str, int] = {}
    """Code -> what it spills."""
    faults = []
    for shape in shapes:
        for example in examples(shape, "meta"):
            for launch in example.plan():
                for target in TARGETS:
                    name = f"{example}, {launch.kernel.fn.__name__} for {shape} on {target}"
                    try:
                        kernel = compile_launch(launch, target)
                    except Exception as error:
                        faults.append(f"{name} does not compile: {last_line(str(error))}")
                        continue
                    if kernel.hash in variants:
                        continue
                    resources = read_resources(kernel)
                    variants[kernel.hash] = resources.spilled
                    if resources.atomics:
                        faults.append(f"{name} has {resources.atomics} atomics.")
    spills = sum(map(bool, variants.values()))
    print(json.dumps({"variants": len(variants), "spills": spills, "faults": faults}))


def last_line(text: str) -> str:
    """The last line that says something."""
    return next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "nothing is said")


def count_tests(output: str) -> dict[str, int]:
    """Read how many tests passed, failed and so on in the closing line of pytest."""
    closing = last_line(output)
    return {kind: int(count) for count, kind in re.findall(r"(\d+) (passed|failed|error|skipped)", closing)}


def attempt(version: str, cache: Path, quick: bool) -> Outcome:
    """Compile and test with one version of Triton, in two processes side by side."""
    try:
        folder = fetch(version, cache)
    except NotFetchedError as error:
        return Outcome(version, problems=[str(error)])
    environment = environment_for(folder, os.environ)
    shapes = "QUICK_SHAPES" if quick else "SHAPES"
    code = f"from benchmarks import versions; versions.compile_here({version!r}, versions.{shapes})"
    tests = ["-m", "pytest", "-q", "--tb=no", "-p", "no:cacheprovider", *(QUICK_TESTS if quick else TESTS)]
    compiling = start(["-c", code], environment)
    testing = start(tests, {**environment, "TRITON_INTERPRET": "1", "IIR_FAST_BACKEND": "triton"})
    compiled, errors = compiling.communicate()
    tested, unexpected = testing.communicate()
    problems = []
    if compiling.returncode:
        problems.append(f"the process that compiles ended with {compiling.returncode}: {errors.strip()[-2000:]}")
    counts = count_tests(tested)
    problems += re.findall(r"^(?:FAILED|ERROR) .*", tested, re.MULTILINE)
    if (testing.returncode and not problems) or not counts.get("passed"):
        problems.append(f"pytest ended with {testing.returncode}: {(tested + unexpected).strip()[-2000:]}")
    figures = json.loads(last_line(compiled)) if not compiling.returncode else {}
    return Outcome(version, tests=counts, problems=problems, **figures)


def environment_for(folder: Path, given: Mapping[str, str]) -> dict[str, str]:
    """Variables under which a process finds the Triton of that folder and keeps its code beside it."""
    path = os.pathsep.join([str(folder), *filter(None, [given.get("PYTHONPATH")])])
    # pytest cuts the reason of a failure where the terminal ends.
    return {**given, "PYTHONPATH": path, "TRITON_CACHE_DIR": f"{folder}-compiled", "COLUMNS": "300"}


def start(arguments: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen[str]:
    """Start Python at the root of the repository."""
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def render(outcomes: Iterable[Outcome]) -> str:
    """The table, a row for each version."""
    lines = [COLUMNS, ["---"] * len(COLUMNS), *(outcome.row() for outcome in outcomes)]
    head = INTRODUCTION.format(
        python=platform.python_version(),
        torch=torch.__version__,
        shapes="; ".join(map(str, SHAPES)),
        targets=", ".join(TARGETS),
    )
    return head + "".join(f"| {' | '.join(line)} |\n" for line in lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """Try the versions and say what became of each; 1 if there is any fault, else 0."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.versions", description=__doc__.split("\n")[0])
    parser.add_argument("versions", nargs="*", metavar="VERSION", help=f"of Triton; default: {', '.join(VERSIONS)}")
    parser.add_argument("--quick", action="store_true", help="some shapes and tests, two versions, no table")
    parser.add_argument("--cache", type=Path, default=CACHE, help=f"half a gigabyte each; default: {CACHE}")
    options = parser.parse_args(arguments)
    outcomes = []
    for version in choose(options.versions, options.quick, installed("triton")):
        outcome = attempt(version, options.cache.resolve(), options.quick)
        outcomes.append(outcome)
        for each in outcome.faults + outcome.problems:
            print(f"Triton {version}: {each}")
        print(", ".join(f"{name} {cell}" for name, cell in zip(COLUMNS, outcome.row(), strict=True)), flush=True)
    if not options.versions and not options.quick:
        RESULTS.write_text(render(outcomes), encoding="utf-8")
        print(f"Table in {RESULTS}.")
    return int(any(outcome.faults or outcome.problems for outcome in outcomes))


if __name__ == "__main__":
    sys.exit(main())
