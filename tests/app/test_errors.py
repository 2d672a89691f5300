"""Whatever is wrong with the input: one line on stderr with the file in it, and exit status 2."""

from __future__ import annotations

import pytest

from iir_fast.app.cli import main
from iir_fast.app.commands.doctor import Doctor


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "out", "--recipe", "bad.yaml", "--data", "procedural"],
        ["plan", "--backbone", "small_cnn", "--recipe", "bad.yaml"],
        ["compare", "bad.yaml", "out"],
        ["evaluate", "."],
        ["report", "."],
        ["train", ".", "--resume", "auto"],
    ],
    ids=lambda each: each[0],
)
def test_a_file_that_is_no_text_is_named(arguments, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("bad.yaml", "config.yaml"):
        (tmp_path / name).write_bytes(b"seed: \xff")
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    said = capsys.readouterr().err
    assert f"{'bad' if 'bad.yaml' in arguments else 'config'}.yaml is no text in UTF-8: " in said
    assert said.count("\n") == 1
    assert {file.name for file in tmp_path.iterdir()} == {"bad.yaml", "config.yaml"}


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (MemoryError(), "iir-fast: there is not enough memory.\n"),
        (MemoryError("no room for 9 GiB"), "iir-fast: no room for 9 GiB\n"),
        (RuntimeError("no such size\nException raised from empty.cpp:9\nframe #0: x"), "iir-fast: no such size\n"),
    ],
)
def test_an_error_is_its_first_line_and_with_debug_all_of_it(error, said, monkeypatch, capsys):
    def fail(self):
        raise error

    monkeypatch.setattr(Doctor, "run", fail)
    for arguments in (["doctor"], ["--debug", "doctor"], ["doctor", "--debug"]):
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        assert ended.value.code == 2
        err = capsys.readouterr().err
        if "--debug" in arguments:
            assert err.startswith("Traceback (most recent call last):\n")
            assert err.endswith(said)
        else:
            assert err == said


def test_debug_shows_the_traceback_of_a_process(cli, tmp_path):
    plain = cli("score", tmp_path / "maps", "--data", tmp_path / "none", code=2).stderr
    assert plain.count("\n") == 1
    debugged = cli("score", tmp_path / "maps", "--data", tmp_path / "none", "--debug", code=2).stderr
    assert debugged.startswith("Traceback")
    assert debugged.endswith(plain)
