"""Which implementation of the operators is under test, and processes that start at once."""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest

# test_interpreter.py starts a second process in which it is "triton"; in both, calls that force nothing run it.
IMPLEMENTATION = os.environ.get("IIR_FAST_BACKEND", "host")
FORKED = Path(__file__).with_name("forked.py")


@pytest.fixture
def implementation() -> str:
    """The backend under test: "host" or "triton"."""
    return IMPLEMENTATION


@pytest.fixture(params=[IMPLEMENTATION, "reference"])
def each_backend(request: pytest.FixtureRequest) -> str:
    """The backend under test, and the reference."""
    return request.param


@pytest.fixture(scope="session", autouse=os.environ.get("TRITON_INTERPRET") == "1")
def quicker_interpreter() -> Iterator[None]:
    """Triton's interpreter prepares its language anew for every call of a function: two thirds of its time, saved."""
    from triton.runtime import interpreter

    prepare: Callable[[Any], Any] = interpreter._patch_lang

    def prepare_once(function: Any) -> Any:
        languages = [value for value in function.__globals__.values() if value in (interpreter.tl, interpreter.tl.core)]
        if any(interpreter.tl.core.is_builtin(language.load) for language in languages):
            return prepare(function)
        return interpreter._LangPatchScope()

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_lang", prepare_once)
        yield


@dataclass(frozen=True)
class Started:
    """A Python process of its own that was spared the imports."""

    process: BaseProcess
    output: Path
    errors: Path

    def finish(self, code: int = 0) -> subprocess.CompletedProcess[str]:
        """Wait for it, and see that it ends with that exit status."""
        self.process.join(600)
        self.process.kill()  # if it hangs
        stdout, stderr = (file.read_text(encoding="utf-8") for file in (self.output, self.errors))
        assert self.process.exitcode == code, stdout + stderr
        return subprocess.CompletedProcess([], code, stdout, stderr)


@pytest.fixture(scope="session")
def start_python(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Started]:
    """Starts `python ARGUMENTS` with the environment of the test and variables of its own.

    The process is forked from one that has imported the package, which takes some five seconds of a processor
    otherwise, most of them for torch and timm.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["iir_fast.cli"])
    folder, numbers = tmp_path_factory.mktemp("python"), count()

    def start(*arguments: object, **variables: str) -> Started:
        number = next(numbers)
        output, errors = folder / f"{number}.out", folder / f"{number}.err"
        given = (list(map(str, arguments)), {**os.environ, **variables}, output, errors)
        process = context.Process(target=runpy.run_path, args=(str(FORKED), {"given": given}))
        process.start()
        return Started(process, output, errors)

    return start


@pytest.fixture(scope="session")
def cli(start_python: Callable[..., Started]) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `iir-fast ARGUMENTS` as a process and sees that it ends with the exit status `code`, 0 if not told."""

    def run(*arguments: object, code: int = 0, **variables: str) -> subprocess.CompletedProcess[str]:
        return start_python("-m", "iir_fast.cli", *arguments, **variables).finish(code)

    return run


@pytest.fixture(scope="session")
def on_ranks(start_python: Callable[..., Started]) -> Callable[..., list[str]]:
    """Runs `python ARGUMENTS` on so many ranks with the environment that torchrun would give them; what each prints.

    Every one of them must end with the exit status `code`, 0 if not told.
    """

    def run(size: int, *arguments: object, code: int = 0) -> list[str]:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(size)}
        shared |= {"TORCHELASTIC_RUN_ID": "none", "OMP_NUM_THREADS": "1"}
        ranks = [start_python(*arguments, RANK=str(rank), LOCAL_RANK=str(rank), **shared) for rank in range(size)]
        return [rank.finish(code).stdout for rank in ranks]

    return run
