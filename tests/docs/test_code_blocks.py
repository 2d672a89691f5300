"""Every fenced code block of the documentation runs, or is parsed by the real parsers and says why it does not run.

The blocks of a page run in order, in one folder and one Python namespace. Python runs as it stands. Bash runs in bash,
with functions in place of programs that write down how they are called; the commands of iir-fast are then run in this
process, with the arguments that bash made. Two comments, which a reader of the page does not see, come before a block:

    <!-- prepare ... -->             Python that makes what the block takes for granted, such as a folder of photos
    <!-- not run: the reason -->     its commands are parsed and go no further
"""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
from collections import Counter
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from torch.distributed.run import parse_args as parse_torchrun

from iir_fast.app import cli

ROOT = Path(__file__).parents[2]
NEEDED = ("configs", "examples")
"""Folders of the repository that commands name."""
PROGRAMS = ("iir-fast", "python", "python3", "torchrun", "pip", "pytest", "ruff", "mkdocs", "git")
# Each takes what is piped into it: a writer whose reader is gone would fail.
RECORD = "".join(
    f'{name}() {{ while read -r _; do :; done; printf "%s\\n" "{name} ${{*@Q}}" >>"$CALLS"; }}\n' for name in PROGRAMS
)
BASH = f"PATH=/nowhere\n.() {{ :; }}\n{RECORD}"

COMMENT = r"<!--(?:(?!-->).)*-->\n+"
BLOCK = re.compile(rf"^(?P<comments>(?:{COMMENT})*)```(?P<language>\S*)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL)
PREPARE = re.compile(r"<!-- prepare\n(.*?)-->", re.DOTALL)
NOT_RUN = re.compile(r"<!-- not run: (.*?) -->", re.DOTALL)


@dataclass(frozen=True)
class Block:
    """A fenced code block, the line it begins at, and the comments before it."""

    line: int
    language: str
    text: str
    comments: str

    @property
    def prepare(self) -> str:
        return "".join(PREPARE.findall(self.comments))

    @property
    def not_run(self) -> str | None:
        reason = NOT_RUN.search(self.comments)
        return reason and reason[1]

    @property
    def state(self) -> str:
        if self.language == "text":
            return "nothing to run"
        return "run" if self.not_run is None else "parsed"


def blocks_of(markdown: str) -> list[Block]:
    """All blocks of a page."""
    return [
        Block(markdown[: match.start("text")].count("\n"), match["language"], match["text"], match["comments"])
        for match in BLOCK.finditer(markdown)
    ]


def calls_of(bash: str, folder: Path) -> list[list[str]]:
    """The programs that a bash script calls, with their arguments as bash makes them."""
    written = folder / "calls"
    written.write_text("")
    shell = shutil.which("bash")
    assert shell, "bash is not installed"
    command = [shell, "-euo", "pipefail", "-c", BASH + bash]
    result = subprocess.run(
        command,
        cwd=folder,
        env={"CALLS": str(written), "PHOTOS": "photos"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    calls = [shlex.split(line) for line in written.read_text().splitlines()]
    assert calls, "no program is called"
    return calls


def commands_of(call: list[str]) -> list[str] | None:
    """The arguments of iir-fast in a call; None where another program is called, one that is there."""
    program, *arguments = call
    if program == "iir-fast":
        return arguments
    if program.startswith("python") and arguments[:2] == ["-m", "iir_fast"]:
        return arguments[2:]
    if program == "torchrun":
        launch = parse_torchrun(arguments)
        assert launch.module
        assert launch.training_script == "iir_fast"
        return list(launch.training_script_args)
    if program.startswith("python") and arguments[0] == "-m":
        assert find_spec(arguments[1]), f"there is no module {arguments[1]}"
    elif program.startswith("python"):
        assert (ROOT / arguments[0]).is_file(), f"there is no file {arguments[0]}"
    return None


def invoke(arguments: list[str], run: bool) -> None:
    """Parse the arguments of iir-fast as the program does, and run the command if asked to."""
    with pytest.MonkeyPatch.context() as patch:
        for name in cli.COMMANDS if not run else ():
            patch.setattr(cli.command_class(name), "run", lambda self: None)
        try:
            cli.main(arguments)
        except SystemExit as stopped:
            pytest.fail(f"iir-fast {shlex.join(arguments)} ends with status {stopped.code}")


def execute(block: Block, folder: Path, namespace: dict[str, Any]) -> None:
    """Bring a block to the state that it is said to have."""
    exec(compile(block.prepare, "<prepare>", "exec"), namespace)
    if block.state == "nothing to run":
        return
    if block.language == "python":
        # As in a file of its own: this module's imports from __future__ are not the page's.
        code = compile(block.text, f"<line {block.line}>", "exec", dont_inherit=True)
        if block.state == "run":
            exec(code, namespace)
        return
    assert block.language == "bash", f"{block.language!r} is neither python nor bash nor text"
    for call in calls_of(block.text, folder):
        arguments = commands_of(call)
        if arguments is not None:
            invoke(arguments, block.state == "run")
        else:
            assert block.state == "parsed", f"{shlex.join(call)} is not run here; say so, and why"


PAGES = ["README.md", "CONTRIBUTING.md", "configs/README.md", "docs/**/*.md"]
BLOCKS = {
    str(page.relative_to(ROOT)): blocks_of(page.read_text(encoding="utf-8"))
    for pattern in PAGES
    for page in sorted(ROOT.glob(pattern))
    if not page.is_symlink()
}


@pytest.mark.slow
@pytest.mark.parametrize("page", [page for page, blocks in BLOCKS.items() if blocks])
def test_every_block_of_the_page_runs_or_says_why_not(page, tmp_path, monkeypatch):
    for name in NEEDED:
        (tmp_path / name).symlink_to(ROOT / name)
    monkeypatch.chdir(tmp_path)
    namespace: dict[str, Any] = {"__name__": "page"}
    for block in BLOCKS[page]:
        execute(block, tmp_path, namespace)


@pytest.mark.parametrize("page", BLOCKS)
def test_no_fence_and_no_comment_is_passed_over(page):
    markdown, blocks = (ROOT / page).read_text(encoding="utf-8"), BLOCKS[page]
    assert len(re.findall(r"^\s*(?:```|~~~)", markdown, re.MULTILINE)) == 2 * len(blocks)
    assert markdown.count("<!-- prepare") == sum(block.comments.count("<!-- prepare") for block in blocks)
    assert markdown.count("<!-- not run") == sum(block.not_run is not None for block in blocks)
    assert all(block.not_run is None or len(block.not_run.split()) > 2 for block in blocks), "reasons, in words"


def test_what_can_run_does():
    states = Counter(block.state for blocks in BLOCKS.values() for block in blocks)
    assert set(states) == {"run", "parsed", "nothing to run"}
    assert states["run"] >= 20, states


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("iir-fast train runs/x --no-such-option 3", "ends with status 2"),
        ("for method in cam no_method; do iir-fast train runs/x --method $method; done", "no_method"),
        ("torchrun --standalone -m iir_fast train runs/x --precision fp64", "fp64"),
        ("iir-fast train runs/x --recipe configs/no_such.yaml --data photos", "no_such.yaml"),
        ("python -m iir_fast no_such_command", "ends with status 2"),
        ("python -m benchmarks.no_such", "there is no module benchmarks.no_such"),
        ("python examples/no_such.py", "there is no file examples/no_such.py"),
        ("no_such_program", "no_such_program"),
        ("# nothing", "no program is called"),
    ],
)
def test_a_wrong_command_that_is_not_run_is_noticed(text, words, tmp_path, capsys):
    with pytest.raises((AssertionError, pytest.fail.Exception)) as failure:
        execute(Block(1, "bash", text, "<!-- not run: a test of the test -->"), tmp_path, {})
    assert words in str(failure.value) + capsys.readouterr().err


def test_a_program_that_is_not_run_says_why(tmp_path):
    with pytest.raises(AssertionError, match="pip install x is not run here; say so, and why"):
        execute(Block(1, "bash", "pip install x", ""), tmp_path, {})
