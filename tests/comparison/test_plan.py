"""What a comparison's YAML may say, and the runs it asks for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from iir_fast.comparison import Published, read_comparison
from iir_fast.comparison.published import COLUMNS
from iir_fast.training import TrainConfig

WHOLE = """
title: Heads
seeds: [0, 4]
maps: [cam, both]
base: {optimization: {epochs: 3, learning_rate: 1e-3}, hidden: 8}
data:
  plain:
  few images: {train_images: 80, hidden: 16}
rows:
  CAM: {method: {name: cam}}
  IIR, wide: {model: {hidden: 64}}
"""


def written(text: str, folder: Path) -> Path:
    file = folder / "heads.yaml"
    file.write_text(text)
    return file


def test_rows_go_before_data_variants_and_these_before_the_base(tmp_path):
    comparison = read_comparison(written(WHOLE, tmp_path))
    assert (comparison.title, comparison.maps, comparison.seeds) == ("Heads", ("cam", "both"), (0, 4))
    assert (comparison.rows, comparison.variants) == (("CAM", "IIR, wide"), ("plain", "few images"))
    runs = {str(run.folder): run.config for run in comparison.runs}
    base = {"epochs": 3, "learning_rate": 1e-3}
    assert runs == {
        "plain/cam/seed0": TrainConfig().with_options(method="cam", hidden=8, **base),
        "plain/iir-wide/seed0": TrainConfig().with_options(hidden=64, **base),
        "few-images/cam/seed0": TrainConfig().with_options(method="cam", hidden=16, train_images=80, **base),
        "few-images/iir-wide/seed0": TrainConfig().with_options(hidden=64, train_images=80, **base),
        "plain/cam/seed4": TrainConfig().with_options(method="cam", hidden=8, seed=4, **base),
        "plain/iir-wide/seed4": TrainConfig().with_options(hidden=64, seed=4, **base),
        "few-images/cam/seed4": TrainConfig().with_options(method="cam", hidden=16, train_images=80, seed=4, **base),
        "few-images/iir-wide/seed4": TrainConfig().with_options(hidden=64, train_images=80, seed=4, **base),
    }
    assert [*runs][:2] == ["plain/cam/seed0", "plain/iir-wide/seed0"]
    assert comparison.runs[3].name == "IIR, wide, few images, seed 0"


def test_what_may_be_left_out(tmp_path):
    comparison = read_comparison(written("{seeds: 2, rows: {IIR: }}", tmp_path), data="photos")
    assert (comparison.title, comparison.maps, comparison.variants) == ("heads", ("cam", "evidence", "both"), ("",))
    assert [run.config for run in comparison.runs] == [
        TrainConfig().with_options(data="photos", seed=seed) for seed in (0, 1)
    ]
    assert [str(run.folder) for run in comparison.runs] == ["iir/seed0", "iir/seed1"]


def test_a_baseline_has_one_map_and_a_folder_of_its_own(tmp_path):
    rows = "{middle: {baseline: center, image_size: 64}, IIR: }"
    comparison = read_comparison(written(f"{{seeds: 1, rows: {rows}}}", tmp_path))
    assert comparison.baselines == {"middle": "center"}
    assert (comparison.maps_of("middle"), comparison.maps_of("IIR")) == (("cam",), ("cam", "evidence", "both"))
    middle, iir = comparison.runs
    assert (str(middle.folder), str(iir.folder)) == ("middle/centerseed0", "iir/seed0")
    assert middle.config == TrainConfig().with_options(image_size=64)


def published(row: str, more: str = "title: T") -> str:
    return f"{{seeds: 1, rows: {{A: }}, {more}, published: [{row}]}}"


def test_the_example_of_published_figures_is_read_and_says_that_it_is_invented(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "reference" / "comparison.md").read_text()
    before, baselines, between, text, _ = page.split("```")
    assert between.rstrip().endswith("**Everything in this example is invented:**")
    assert "classifier" in before
    comparison = read_comparison(written(f"seeds: 1{baselines.removeprefix('text')}", tmp_path))
    assert comparison.baselines == {"Gaussian": "center", "untrained CAM": "classifier"}
    (row,) = read_comparison(written(text.removeprefix("text"), tmp_path)).published
    source = 'A. Nobody, "A Paper that Does Not Exist", table 0'
    assert row == Published("Invented Method", source, "", {"max_box_acc_v2": 12.34, "top1_loc": 5.6})
    assert all(f"`{key}`" in page for _, key in COLUMNS)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("- a", "heads.yaml holds no mapping"),
        ("a: [", "heads.yaml is no YAML"),
        (r'{seeds: 1, rows: {A: }, "r\now": {}}', r"heads.yaml names 'r\\now'; known keys are title"),
        ("{seeds: 1, rows: {A: }, row: {}}", "heads.yaml names row; known keys are title, seeds, maps"),
        ("{rows: {A: }}", "heads.yaml: seeds is None; accepted is a number of 1 or more"),
        ("{seeds: 0, rows: {A: }}", "seeds is 0;"),
        ("{seeds: [1, 1], rows: {A: }}", r"seeds is \[1, 1\]; .* different seeds"),
        ("{seeds: 1, rows: {A: }, maps: [heat]}", r"maps is \['heat'\]; accepted is a list of both, evidence, cam"),
        ("{seeds: 1, rows: {}}", "rows is {}; accepted is a mapping from names to options, with one name"),
        ("{seeds: 1, rows: {A: 3}}", "rows, A is 3; accepted is a mapping of options"),
        ("{seeds: 1, rows: {A b: , a-B: }}", "rows: 'a-B' and 'A b' do not tell two folders apart"),
        ("{seeds: 1, rows: {'': }}", "rows: '' and '' do not tell"),
        ("{seeds: 1, rows: {A: {baseline: [a]}}}", r"rows, A: baseline is \['a'\]; accepted is center or classifier"),
        ("{seeds: 1, base: {baseline: center}, rows: {A: }}", "heads.yaml, A names baseline; known options are"),
        ("{seeds: 1, rows: {A: {seed: 3}}}", "rows, A names seed; the seeds stand under seeds"),
        ("{seeds: 1, rows: {A: {epoks: 3}}}", "heads.yaml, A names epoks; known options are"),
        (
            "{seeds: 1, rows: {A: {model: {epochs: 3}}}}",
            "rows, A: model names epochs, which it does not",
        ),
        (
            "{seeds: 1, base: {temperature: 0.3}, rows: {A: {method: cam}}}",
            "A names temperature, which is an option of method iir",
        ),
        (
            "{seeds: 1, data: {few: {epochs: two}}, rows: {A: }}",
            "heads.yaml, few, A: epochs is 'two'; accepted is a wh",
        ),
        ("{seeds: 1, base: {epochs: 0}, rows: {A: }}", "heads.yaml, A: epochs is 0; accepted is 1 or more"),
        ("{seeds: 1, rows: {A: }, published: {B: 3}}", "published is {'B': 3}; accepted is a list of mappings"),
        ("{seeds: 1, rows: {A: }, published: [B]}", r"published is \['B'\]; accepted is a list of mappings"),
        (published("{name: B, pxap: 3}"), "published, row 1: source is None; accepted is a text, as every figure"),
        (published("{name: B, source: ' ', pxap: 3}"), "row 1: source is ' ';"),
        (published("{name: 3, source: S, pxap: 3}"), "row 1: name is 3; accepted is a text"),
        (published("{name: B, source: S}"), "row 1: its figures are {}; accepted is one or more"),
        (published("{name: B, source: S, pxap: 101}"), r"row 1: its figures are {'pxap': 101}; .* from 0 to 100 %"),
        (published("{name: B, source: S, pxap: .nan}"), "row 1: its figures are {'pxap': nan}"),
        (published("{name: B, source: S, pxap: yes}"), "row 1: its figures are {'pxap': True}"),
        (published(r'{name: B, source: S, "p\nIoU": 3}'), r"row 1 names 'p\\nIoU'; known are name"),
        (published("{name: B, source: S, pIoU: 3}"), "row 1 names pIoU; known are name, source, data, no_box_gt"),
        (published("{name: B, source: S, pxap: 3, data: few}"), "row 1: data is 'few'; accepted is none, as the file"),
        (published("{name: B, source: S, pxap: 3}", "data: {few: }"), "row 1: data is ''; accepted is few"),
    ],
)
def test_faults_are_named(text, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        read_comparison(written(text, tmp_path))


def test_the_caller_cannot_set_the_data_that_the_file_varies(tmp_path):
    text = "{seeds: 1, data: {birds: {data: birds}}, rows: {A: }}"
    with pytest.raises(ValueError, match=r"data is 'photos', but .*heads.yaml sets the data of birds itself"):
        read_comparison(written(text, tmp_path), data="photos")


COMPARISONS = Path(__file__).parents[2] / "configs" / "compare"


def test_refined_maps_are_compared_with_the_budget_of_all_methods():
    for name in ("embedded", "photos"):
        refined, all_methods = (
            read_comparison(COMPARISONS / f"{folder}{name}.yaml", data="photos" if name == "photos" else None)
            for folder in ("refined/", "")
        )
        configs = {run.row: run.config for run in all_methods.runs if run.seed == 0}
        assert refined.refinements == ("none", "guided", "grabcut")
        for run in refined.runs:
            assert run.config == configs[run.row].with_options(seed=run.seed, test_images=run.config.images.test_images)


@pytest.mark.parametrize(
    ("name", "rows", "variants"),
    [
        ("embedded", 13, 1),
        ("photos", 15, 1),
        ("ablation/embedded", 7, 1),
        ("ablation/harder", 7, 3),
        ("ablation/photos", 7, 1),
        ("ablation/photos_lite2", 7, 1),
    ],
)
def test_the_comparisons_of_the_repository_are_sound(name, rows, variants):
    comparison = read_comparison(COMPARISONS / f"{name}.yaml", data="photos" if "photos" in name else None)
    assert (len(comparison.rows), len(comparison.variants), len(comparison.seeds)) == (rows, variants, 5)
    assert comparison.maps == ("cam", "evidence", "both")
    # Rows are different runs, and the rows of IIR differ from its defaults in one option.
    for variant in comparison.variants:
        configs = {run.row: run.config for run in comparison.runs if (run.variant, run.seed) == (variant, 0)}
        trained = {row: config for row, config in configs.items() if row not in comparison.baselines}
        assert len(set(trained.values())) == len(trained)
        for row, config in trained.items():
            if row.startswith("IIR"):
                changed = config.options().items() - configs["IIR"].options().items()
                assert len(changed) == (row != "IIR")
                assert config == replace(configs["IIR"], method=config.method)
            elif row == "CAM at 320":
                assert config == configs["CAM"].with_options(image_size=320)
            else:
                assert config == configs["IIR"].with_options(method=row.lower())
