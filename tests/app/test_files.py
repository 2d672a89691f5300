"""Files that are written aside: whole or as they were, whatever ends the process or the disk."""

from __future__ import annotations

import os
import resource
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from iir_fast.app.files import (
    PARTS,
    in_short,
    read_object,
    read_text,
    remove_leftovers,
    scratch_folder,
    set_aside,
    whole_file,
    write_whole,
)


def killed_within(work: Callable[[], object]) -> None:
    """Do something in a process that is killed before it ends."""
    child = os.fork()
    if child == 0:
        work()
        os._exit(1)
    assert os.waitpid(child, 0)[1] == signal.SIGKILL


def killed_while_writing(file: Path) -> None:
    def work() -> None:
        with whole_file(file) as aside:
            aside.write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    killed_within(work)


def test_a_file_is_replaced_when_the_new_one_is_whole(tmp_path):
    file = tmp_path / "a.json"
    write_whole(file, "öld")
    with whole_file(file) as aside:
        aside.write_text("new")
        assert file.read_text(encoding="utf-8") == "öld"
    assert file.read_text() == "new"
    with pytest.raises(ZeroDivisionError), whole_file(file) as aside:
        aside.write_text(str(1 / 0))
    assert file.read_text() == "new"
    assert list(tmp_path.iterdir()) == [file]


def test_a_link_is_replaced_and_what_it_points_to_is_left(tmp_path):
    (tmp_path / "secret").write_text("mine")
    (tmp_path / "a.png").symlink_to(tmp_path / "secret")
    write_whole(tmp_path / "a.png", b"picture")
    assert (tmp_path / "secret").read_text() == "mine"
    assert not (tmp_path / "a.png").is_symlink()
    assert (tmp_path / "a.png").read_bytes() == b"picture"


def test_the_rights_are_those_of_any_new_file(tmp_path):
    (tmp_path / "plain").touch()
    write_whole(tmp_path / "whole", "")
    assert (tmp_path / "whole").stat().st_mode == (tmp_path / "plain").stat().st_mode


def test_names_may_be_as_long_as_names_can_be(tmp_path):
    write_whole(tmp_path / ("ö" * 127), "long")
    assert (tmp_path / ("ö" * 127)).read_text() == "long"


def test_what_cannot_be_written_is_named(tmp_path):
    with pytest.raises(IsADirectoryError, match=f"'{tmp_path}'"):
        write_whole(tmp_path, "")
    with pytest.raises(FileNotFoundError, match=f"'{tmp_path}/none/a'"):
        write_whole(tmp_path / "none" / "a", "")


def test_a_full_disk_leaves_what_was_there_and_is_said_in_a_sentence(tmp_path):
    file = tmp_path / "a"
    write_whole(file, "old")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
    try:
        with pytest.raises(OSError, match=rf"^{file} could not be written \(.*\); what was there before still is\.$"):
            write_whole(file, bytes(2000))
        with pytest.raises(OSError, match="out could not be written"), scratch_folder(tmp_path / "out") as aside:
            (aside / "part").write_bytes(bytes(2000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_what_a_killed_process_leaves_is_removed_and_what_others_write_is_not(tmp_path):
    killed_while_writing(tmp_path / "a")

    def fill() -> None:
        with scratch_folder(tmp_path / "out") as aside:
            (aside / "part").write_text("half")
            os.kill(os.getpid(), signal.SIGKILL)

    killed_within(fill)
    (tmp_path / "film.part").write_text("somebody's download")
    assert len(list(tmp_path.glob(PARTS))) == 2
    with whole_file(tmp_path / "b") as aside, scratch_folder(tmp_path / "other") as folder:
        remove_leftovers(tmp_path)
        assert sorted(tmp_path.glob(PARTS)) == sorted([aside, folder])
    assert sorted(file.name for file in tmp_path.iterdir()) == ["b", "film.part"]


def test_damaged_files_are_named_and_kept_under_other_names(tmp_path, capsys):
    file = tmp_path / "metrics.json"
    for number, content in enumerate(("", "[1]", '{"test": ', "[" * 100_000), 1):
        file.write_text(content)
        with pytest.raises(ValueError, match=f"^{file} is damaged: ") as caught:
            read_object(file)
        set_aside(file, caught.value)
        assert f"metrics.json is damaged: {caught.value.args[0].split(': ', 1)[1]}" in capsys.readouterr().err
        assert (tmp_path / f"metrics.json.damaged-{number}").read_text() == content
        assert not file.exists()


def test_what_is_no_text_is_named(tmp_path):
    file = tmp_path / "config.yaml"
    file.write_bytes(b"\xef\xbb\xbfseed: 3")
    assert read_text(file) == "seed: 3"
    file.write_bytes("seed: 3".encode("utf-16"))
    with pytest.raises(ValueError, match=f"^{file} is no text in UTF-8: "):
        read_text(file)


def test_errors_of_libraries_in_short():
    assert in_short(ValueError("\n one\nframe #0: two")) == "one"
    assert in_short(KeyError()) == "KeyError"
    assert len(in_short(ValueError("x" * 5000))) == 200
