"""The data apart: what is written opens, is the same twice, and holds what it says."""

from __future__ import annotations

from benchmarks import apart
from iir_fast.data import open_split


def test_it_opens_with_boxes_that_hold_the_objects(tmp_path, monkeypatch):
    monkeypatch.setattr(apart, "TRAIN", 3)
    monkeypatch.setattr(apart, "TEST", 2)
    for name in ("one", "other"):
        apart.write(tmp_path / name)
    files = sorted(path.relative_to(tmp_path / "one") for path in (tmp_path / "one").rglob("*.*"))
    assert len(files) == 2 + 5 * len(apart.CLASSES)
    assert all((tmp_path / "one" / file).read_bytes() == (tmp_path / "other" / file).read_bytes() for file in files)
    test = open_split(str(tmp_path / "one"), "test", lambda image: image)
    assert set(test.classes) == set(apart.CLASSES)
    for i in range(len(test)):
        x0, y0, x1, y1 = test.ground_truth(i).boxes[0]
        assert 0 <= x0 < x1 <= apart.SIDE
        assert 0 <= y0 < y1 <= apart.SIDE
        assert max(x1 - x0, y1 - y0) <= 0.7 * apart.SIDE + 1
