"""Drive readers and commands with generated bad input; print what is no sentence, hangs, crashes or writes elsewhere.

    python -m tests.fuzz --seconds 60 --seed 3 csv weights localize

The same seed makes the same inputs; `--only N` runs one of them again and shows its traceback. Input 0 is sound.
"""

from __future__ import annotations

import argparse
import faulthandler
import multiprocessing
import os
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from random import Random
from typing import Any, NoReturn

# Before torch is imported.
os.environ |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "-1", "HF_HUB_OFFLINE": "1"}
os.environ |= {"IIR_FAST_MAX_MEGAPIXELS": "4"}

from iir_fast.app import cli
from iir_fast.app.machine import commit
from tests.fuzz import samples
from tests.fuzz.mutate import mutate
from tests.fuzz.targets import TARGETS, Target
from tests.fuzz.watch import Breach, Started, Watch, objection

TIME, MEMORY = 60, 2 * 2**30
"""Seconds for an input, and bytes beyond what the process has before."""
SOUND, REFUSED, FINDING = "sound", "refused", "finding"
"""What becomes of an input: it is taken, or not with a sentence, or something else."""


def main() -> None:
    """Run the targets one after the other, each in a process of its own; exit status 1 where there are findings."""
    description, _, usage = str(__doc__).partition("\n\n")
    parser = argparse.ArgumentParser(
        "python -m tests.fuzz",
        description=description,
        epilog=usage,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"{', '.join(TARGETS)}; all of them by default")
    parser.add_argument("--seconds", type=float, default=10, help="for each target (default: 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="N", help="number of the one input to run, with its traceback")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(TARGETS):
        parser.error(f"there is no target {', '.join(unknown)}")
    with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
        work = Path(folder)
        (work / "out").mkdir()
        os.environ |= {"XDG_CACHE_HOME": str(work / "out"), "TMPDIR": str(work / "out"), "HOME": str(work / "home")}
        tempfile.tempdir = None
        # Once, for all that are forked from here.
        commit()
        for name in cli.COMMANDS:
            cli.command_class(name)
        # In a process of its own, as threads that training starts would be missing in those that are forked from here.
        if (pid := os.fork()) == 0:
            samples.make(work / "in")
            os._exit(0)
        if os.waitpid(pid, 0)[1]:
            sys.exit("the sound samples could not be made.")
        shutil.copytree(work / "in", work / "sound")
        drives = [Drive(work, name, TARGETS[name], options.seed, options.only) for name in options.targets or TARGETS]
        found = sum(drive.run(options.seconds) for drive in drives)
    sys.exit(1 if found else 0)


@dataclass
class Drive:
    """One target, and all that is tried on it: below `work` lie `in`, which is broken, `sound` and `out`."""

    work: Path
    name: str
    target: Target
    seed: int
    only: int | None

    def run(self, seconds: float) -> int:
        """Try inputs for so long, in processes that follow each other where one crashes or hangs; count findings."""
        number, since = multiprocessing.Value("q", self.only or 0), multiprocessing.Value("d", 0.0)
        started, outcomes, findings = time.monotonic(), Counter[str](), dict[str, list[int]]()
        while not outcomes or (time.monotonic() - started < seconds and self.only is None):
            receiver, sender = multiprocessing.Pipe(duplex=False)
            if (pid := os.fork()) == 0:
                self._work(number, since, started + seconds, sender)
            sender.close()
            for kind, text, at in _received(receiver, pid, since):
                outcomes[kind] += 1
                if kind == FINDING:
                    findings.setdefault(text, []).append(at)
            if status := os.waitpid(pid, 0)[1]:
                outcomes[FINDING] += 1
                findings.setdefault(_last_words(status, self.work / "log"), []).append(number.value)
                number.value += 1
        counted = ", ".join(f"{count:,} {kind}" for kind, count in sorted(outcomes.items()))
        print(f"{self.name}: {outcomes.total():,} inputs in {time.monotonic() - started:.0f} s: {counted}", flush=True)
        for text, numbers in findings.items():
            again = f"python -m tests.fuzz {self.name} --seed {self.seed} --only {numbers[0]}"
            print(f"  {len(numbers):,} x {text}\n    {again}", flush=True)
        return len(findings)

    def _work(self, number: Any, since: Any, until: float, sender: Connection) -> NoReturn:
        """Try one input after another in this process."""
        code = 70
        try:
            descriptor = os.open(self.work / "log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            faulthandler.enable(os.fdopen(os.dup(descriptor), "w"))
            if self.only is None:
                os.dup2(descriptor, 1)
                os.dup2(descriptor, 2)
            sys.dont_write_bytecode = True
            [used] = re.findall(r"VmData:\s+(\d+)", Path("/proc/self/status").read_text())
            resource.setrlimit(resource.RLIMIT_DATA, (int(used) * 1024 + MEMORY,) * 2)
            watch = Watch()
            while self.only is not None or time.monotonic() < until or not number.value:
                since.value = time.monotonic()
                sender.send((*self._attempt(number.value, watch), number.value))
                since.value = 0.0
                if self.only is not None:
                    break
                number.value += 1
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def _attempt(self, number: int, watch: Watch) -> tuple[str, str]:
        """Try one input: what became of it, and of a finding what it is."""
        random = Random(f"{self.seed} {self.name} {number}")
        broken = self._break(random, watch) if number else self._restore(watch, everything=True)
        watch.folders = (self.work / "out", *(self.work / "in" / each for each in self.target.writes))
        watch.may_start = self.name == "compare"
        kind, text = SOUND, ""
        try:
            arguments = self.target.run(self.work / "in", broken, random)
            if arguments is not None:
                kind, text = self._command(arguments)
        except (Exception, Breach) as error:
            if self.only is not None:
                traceback.print_exc()
            text = objection(error) or ""
            kind = FINDING if text else REFUSED
        if watch.breaches:
            return FINDING, watch.breaches[0]
        if number == 0 and kind != SOUND:
            return FINDING, f"sound input is refused: {text}"
        return kind, text

    def _restore(self, watch: Watch, everything: bool) -> list[Path]:
        """Put the samples back that were broken, or may have been written to; what is broken: nothing."""
        watch.folders = (self.work,)
        root, sound = self.work / "in", self.work / "sound"
        for part in [""] if everything or not watch.broken else self.target.writes:
            shutil.rmtree(root / part, ignore_errors=True)
            if (sound / part).is_dir():
                shutil.copytree(sound / part, root / part)
        for file in watch.broken:
            if file.parent.is_dir():
                shutil.copy(sound / file.relative_to(root), file)
        shutil.rmtree(self.work / "out")
        for part in ("out", "home"):
            (self.work / part).mkdir(exist_ok=True)
        watch.breaches.clear()
        return []

    def _break(self, random: Random, watch: Watch) -> list[Path]:
        self._restore(watch, everything=False)
        root = self.work / "in"
        files = sorted({file for each in self.target.breaks for file in root.glob(each) if file.is_file()})
        watch.broken = random.sample(files, min(len(files), random.choice((1, 1, 2))))
        for file in watch.broken:
            file.write_bytes(mutate(file.name, file.read_bytes(), random))
        return watch.broken

    def _command(self, arguments: list[str]) -> tuple[str, str]:
        """Run a command in a forked process."""
        output, errors, verdict = (self.work / "out" / f".{each}" for each in ("output", "errors", "verdict"))
        if (pid := os.fork()) == 0:
            _become(arguments, output, errors, verdict)
        deadline = time.monotonic() + 0.75 * TIME
        while not (ended := os.waitpid(pid, os.WNOHANG))[0]:
            if time.monotonic() > deadline:
                os.kill(pid, signal.SIGABRT)
                deadline += TIME
            time.sleep(0.002)
        said, status = errors.read_text(errors="replace"), os.waitstatus_to_exitcode(ended[1])
        if self.only is not None:
            print("iir-fast", *arguments, output.read_text(errors="replace"), said, sep="\n")
        if verdict.exists():
            return FINDING, verdict.read_text()
        if status < 0:
            return FINDING, _last_words(ended[1], errors)
        if status not in (0, 1, 2) or "Traceback (most recent call last)" in said:
            return FINDING, f"exit status {status}: {said[-300:]}"
        return (REFUSED if status == 2 else SOUND), ""


def _received(receiver: Connection, pid: int, since: Any) -> Any:
    """Yield what a process sends until its end, which comes soon where an input takes too long."""
    while True:
        if receiver.poll(0.2):
            try:
                yield receiver.recv()
            except EOFError:
                return
        elif since.value and time.monotonic() - since.value > TIME:
            since.value = 0.0
            os.kill(pid, signal.SIGABRT)


def _last_words(status: int, log: Path) -> str:
    """Say how a process ended, and where, as faulthandler wrote it."""
    text = log.read_text(errors="replace")
    found = re.search(r'File "(.*)", line (\d+) in (\w+)', text)
    where = f" at {Path(found[1]).name}:{found[2]} in {found[3]}" if found else f": {text[-300:]}"
    code = os.waitstatus_to_exitcode(status)
    return f"hang or crash, {f'exit status {code}' if code >= 0 else signal.Signals(-code).name}{where}"


def _become(arguments: list[str], output: Path, errors: Path, verdict: Path) -> NoReturn:
    """Run a command as `iir-fast` does, and write down what is wrong with the error that it ends with."""
    log, code = cli.log, 0

    def judge(sentence: str) -> None:
        if (error := sys.exc_info()[1]) and (text := objection(error)):
            traceback.print_exc()
            verdict.write_text(text)
        log(sentence)

    try:
        for file, descriptor in ((output, 1), (errors, 2)):
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), descriptor)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        faulthandler.enable(sys.__stderr__)
        cli.log = judge
        cli.main(arguments)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except Started:
        pass
    except (Exception, Breach) as error:
        traceback.print_exc()
        verdict.write_text(str(error) if isinstance(error, Breach) else objection(error) or "it is not mapped")
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
