"""RunFolder: refuse, resume, overwrite."""

from __future__ import annotations

import pytest

from iir_fast.training import RunFolder, TrainConfig

CONFIG = TrainConfig()


def test_an_existing_folder_is_refused_and_untouched(tmp_path):
    RunFolder(tmp_path / "run").open(CONFIG, "refuse")
    with pytest.raises(FileExistsError, match="exists; choose to resume or to overwrite it"):
        RunFolder(tmp_path / "run").open(CONFIG.with_options(seed=1), "refuse")
    assert TrainConfig.from_yaml((tmp_path / "run" / "config.yaml").read_text()) == CONFIG


def test_an_empty_folder_is_as_good_as_none(tmp_path):
    RunFolder(tmp_path).open(CONFIG, "refuse")
    assert (tmp_path / "config.yaml").is_file()


@pytest.mark.parametrize("if_exists", ["resume", "overwrite"])
def test_a_folder_that_is_no_run_is_never_touched(if_exists, tmp_path):
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(FileExistsError, match="not the folder of a run; it is left alone"):
        RunFolder(tmp_path).open(CONFIG, if_exists)
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


def test_overwrite_starts_anew(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open(CONFIG, "refuse")
    folder.write_metrics({"test": {}})
    folder.open(CONFIG.with_options(seed=1), "overwrite")
    assert folder.read_metrics() == {}


def test_resume_refuses_another_configuration_and_names_the_option(tmp_path):
    RunFolder(tmp_path / "run").open(CONFIG, "refuse")
    RunFolder(tmp_path / "run").open(CONFIG, "resume")
    with pytest.raises(ValueError, match="differently: method was 'iir' and is 'cam'\\."):
        RunFolder(tmp_path / "run").open(CONFIG.with_options(method="cam", log_every=3), "resume")
    with pytest.raises(ValueError, match=r"differently: temperature was 0\.1 and is 0\.2\."):
        RunFolder(tmp_path / "run").open(CONFIG.with_options(temperature=0.2), "resume")
    with pytest.raises(ValueError, match="epochs was 5 and is 9"):
        RunFolder(tmp_path / "run").open(CONFIG.with_options(epochs=9), "resume")
