"""find_images: files, folders and globs."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from iir_fast.data import find_images


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    names = ("b.JPG", "a.png", "deep/er/c.webp", "deep/a[1].jpeg", "deep/notes.txt", "._a.png", ".hidden/d.png")
    names += ("more/a.jfif", "more/b.jpe", "more/c.gif", "more/d.jp2", "more/e.tiff", "more/noext")
    for name in names:
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).touch()
    (tmp_path / "photos" / "folder.png").mkdir()
    (tmp_path / "README").touch()
    monkeypatch.chdir(tmp_path)
    return Path("photos")


def names(*sources: str | Path) -> list[str]:
    return [path.as_posix() for path in find_images(sources)]


def test_a_folder_stands_for_all_images_below_it_sorted(photos):
    everything = ["photos/a.png", "photos/b.JPG", "photos/deep/a[1].jpeg", "photos/deep/er/c.webp"]
    everything += [f"photos/more/{name}" for name in ("a.jfif", "b.jpe", "c.gif", "d.jp2", "e.tiff")]
    assert names(photos) == names("photos/") == everything


def test_what_is_left_out_is_counted_and_named(photos, capsys):
    assert names("photos/more/a.jfif", "photos/more/*.gif") == ["photos/more/a.jfif", "photos/more/c.gif"]
    assert capsys.readouterr().err == ""
    find_images(["photos"])
    said = "photos: left out 2 files without the suffix of an image: deep/notes.txt, more/noext."
    assert capsys.readouterr().err == f"{said}\n"
    find_images(["photos/more/*"])
    assert "left out 1 file without the suffix of an image: photos/more/noext." in capsys.readouterr().err
    for number in range(10):
        (photos / "more" / f"{number}.txt").touch()
    find_images(["photos/more"])
    said = "left out 11 files without the suffix of an image: 0.txt, 1.txt, 2.txt, 3.txt, 4.txt and 6 more."
    assert said in capsys.readouterr().err


@pytest.mark.skipif("HEIF" in Image.OPEN, reason="pillow-heif is installed")
def test_heic_says_what_to_install(photos, capsys):
    (photos / "deep/er/phone.HEIC").touch()
    find_images(["photos/deep/er"])
    said = '1 file without the suffix of an image: phone.HEIC; HEIC needs pillow-heif: pip install "iir-fast[heic]".'
    assert said in capsys.readouterr().err
    with pytest.raises(ValueError, match=r"phone\.HEIC ends in '\.HEIC'; accepted are .*; HEIC needs pillow-heif: pip"):
        find_images(["photos/deep/er/phone.HEIC"])


def test_the_home_folder_is_expanded(photos, monkeypatch):
    home = photos.absolute()
    monkeypatch.setenv("HOME", str(home))
    assert names("~/a.png", "~/deep/er", "~/b*") == [f"{home}/{name}" for name in ("a.png", "deep/er/c.webp", "b.JPG")]


def test_globs_stand_for_the_images_among_their_matches(photos):
    assert names("photos/*") == ["photos/a.png", "photos/b.JPG"]
    assert names("photos/deep/**/*.[wj]*") == ["photos/deep/a[1].jpeg", "photos/deep/er/c.webp"]
    # A file of that very name comes first; one that is missing shows when it is read.
    assert names("photos/deep/a[1].jpeg", "photos/none.jpg") == ["photos/deep/a[1].jpeg", "photos/none.jpg"]


def test_every_image_counts_once_in_the_order_of_the_sources(photos):
    assert names("photos/b.JPG", photos / "b.JPG", "photos/*", "photos/./a.png") == ["photos/b.JPG", "photos/a.png"]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        ("photos/deep/notes.txt", ValueError, r"^photos/deep/notes\.txt ends in '\.txt'; accepted are images that end"),
        ("README", ValueError, r"^README has no suffix; accepted are images that end in \.jpg, \.jpeg, "),
        ("photos/folder.png", ValueError, r"^the folder photos/folder\.png holds no image; files that end in \.jpg"),
        ("photos/deep/*.txt", ValueError, r"^the glob photos/deep/\*\.txt holds no image; files that end in \.jpg"),
        ("nowhere", FileNotFoundError, r"^nowhere does not exist; accepted are image files, folders and globs"),
        ("nowhere/*.txt", ValueError, r"^the glob nowhere/\*\.txt holds no image"),
    ],
)
def test_what_stands_for_no_image_is_named(photos, source, error, message):
    with pytest.raises(error, match=message):
        find_images([photos, source])
