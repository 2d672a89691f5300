"""Image files as they come: every promised format, EXIF orientations, transparency."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import ExifTags, Image

from iir_fast.data import BrokenImageError, read_image
from iir_fast.data.find import SUFFIXES
from iir_fast.data.images import FORMATS, read_header, read_mask

# How an upright picture lies in a file of each orientation: what undoes what a viewer does.
LYING = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}


@pytest.fixture
def picture() -> Image.Image:
    """24 x 16 pixels, no two quarters alike."""
    quarters = np.array([[[250, 10, 10], [10, 250, 10]], [[10, 10, 250], [240, 240, 240]]], np.uint8)
    return Image.fromarray(quarters.repeat(8, axis=0).repeat(12, axis=1))


def save_lying(picture: Image.Image, orientation: int, file: Path) -> None:
    """Write a picture as a camera does that was held otherwise."""
    lying = picture.transpose(LYING[orientation]) if orientation in LYING else picture
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    options = {"lossless": True} if file.suffix == ".webp" else {"quality": 95, "subsampling": 0}
    lying.save(file, exif=exif, **(options if file.suffix in (".webp", ".jpg") else {}))


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_an_image_of_any_orientation_is_read_upright(picture, orientation, suffix, tmp_path):
    file = tmp_path / f"photo{suffix}"
    save_lying(picture, orientation, file)
    found = read_image(file)
    assert found.size == picture.size
    np.testing.assert_allclose(np.asarray(found, int), np.asarray(picture, int), atol=40 if suffix == ".jpg" else 0)
    assert read_header(tmp_path, file.name, upright=True) == (picture.size, orientation > 1)


def test_as_it_is_stored_it_lies(picture, tmp_path):
    save_lying(picture, 6, tmp_path / "photo.png")
    stored = read_image("photo.png", tmp_path, upright=False)
    assert np.array_equal(stored, picture.transpose(Image.Transpose.ROTATE_90))
    assert read_header(tmp_path, "photo.png", upright=False) == ((16, 24), False)


ODD = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x63\0\0\0\0\0\0\0"
"""An orientation of 99."""


@pytest.mark.parametrize("exif", [b"Exif\0\0nonsense", ODD])
def test_exif_that_says_nothing_turns_nothing(picture, exif, tmp_path):
    picture.save(tmp_path / "photo.jpg", exif=exif)
    assert read_image(tmp_path / "photo.jpg").size == picture.size
    assert read_header(tmp_path, "photo.jpg", upright=True) == (picture.size, False)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_promised_format_is_read(picture, suffix, tmp_path):
    (form,) = [name for name, suffixes in FORMATS.items() if suffix in suffixes]
    if form == "HEIF":
        pytest.importorskip("pillow_heif")
    picture.save(tmp_path / f"a{suffix}", form)
    found = read_image(tmp_path / f"a{suffix}")
    assert (found.mode, found.size) == ("RGB", picture.size)


def test_of_several_frames_the_first_is_read(picture, tmp_path):
    picture.save(tmp_path / "a.gif", save_all=True, append_images=[Image.new("RGB", picture.size, "black")])
    assert np.asarray(read_image(tmp_path / "a.gif")).max() > 200


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_hidden_colours_do_not_matter(picture, mode, tmp_path):
    found = []
    for hidden in (0, 255):
        alpha = Image.new("L", picture.size, 0)
        alpha.paste(255, (0, 0, 12, 16))
        if mode == "P":
            # One colour of the palette is transparent, and it has a value all the same.
            index = Image.new("P", picture.size, 1)
            index.paste(0, (12, 0, 24, 16))
            index.putpalette([hidden] * 3 + [200, 10, 10])
            index.save(tmp_path / "a.png", transparency=0)
        else:
            image = Image.new(mode[:-1], picture.size, (hidden,) * len(mode[:-1]) if mode == "RGBA" else hidden)
            image.paste(picture.convert(mode[:-1]), (0, 0), alpha)
            image.putalpha(alpha)
            image.save(tmp_path / "a.png")
        found.append(np.asarray(read_image(tmp_path / "a.png")))
    assert np.array_equal(*found)
    assert (found[0][:, 12:] == 255).all(), "laid on white"
    assert (found[0][:, :12] != 255).any()


def mask(mode: str) -> Image.Image:
    """6 x 4 pixels, the object in columns 1 and 2, kept in a way that masks are kept in."""
    here = np.zeros((4, 6), np.uint8)
    here[:, 1:3] = 1
    if mode.startswith("alpha"):
        # The object is in alpha, whatever colour lies under it.
        rgba = np.full((4, 6, 4), 255 if mode.endswith("white") else 0, np.uint8)
        rgba[..., 3] = here * 255
        image = Image.fromarray(rgba)
        return image.convert("LA") if "grey" in mode else image
    if mode == "opaque":
        return Image.fromarray(np.dstack([here * 255] * 3 + [np.full_like(here, 255)]))
    if mode == "dark blue":
        return Image.fromarray(np.dstack([here * 0, here * 0, here]))
    if mode == "16 bits":
        return Image.fromarray(here.astype(np.uint16) * 256)
    return Image.fromarray(here * 255).convert(mode)


@pytest.mark.parametrize(
    "mode",
    ["1", "L", "P", "RGB", "16 bits", "dark blue", "opaque", "alpha white", "alpha black", "alpha grey white"],
)
def test_the_object_of_a_mask_is_in_its_alpha_or_in_its_colours(mode, tmp_path):
    mask(mode).save(tmp_path / "mask.png")
    found = read_mask(tmp_path, "mask.png", upright=True)
    assert found.dtype == np.uint8
    assert found.tolist() == [[0, 1, 1, 0, 0, 0]] * 4


def test_a_mask_is_turned_with_its_image(tmp_path):
    save_lying(mask("L"), 6, tmp_path / "mask.png")
    assert read_mask(tmp_path, "mask.png", upright=True).tolist() == [[0, 1, 1, 0, 0, 0]] * 4
    assert read_mask(tmp_path, "mask.png", upright=False).shape == (6, 4)


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_an_image_that_is_too_large_is_refused_with_the_way_out(picture, tmp_path, monkeypatch):
    picture.save(tmp_path / "photo.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    way_out = r"photo\.png cannot be read: .*; make it smaller, or set IIR_FAST_MAX_MEGAPIXELS to the megapixels"
    with pytest.raises(BrokenImageError, match=way_out):
        read_image("photo.png", tmp_path)
    monkeypatch.setenv("IIR_FAST_MAX_MEGAPIXELS", "0.000384")
    assert read_image("photo.png", tmp_path).size == (24, 16)
    monkeypatch.setenv("IIR_FAST_MAX_MEGAPIXELS", "0.000383")
    with pytest.raises(BrokenImageError, match="24 x 16 pixels are more than 383; make it smaller, or set"):
        read_header(tmp_path, "photo.png", upright=True)
    for given in ("many", "-1", "inf", "nan"):
        monkeypatch.setenv("IIR_FAST_MAX_MEGAPIXELS", given)
        with pytest.raises(
            BrokenImageError, match=f"IIR_FAST_MAX_MEGAPIXELS is '{given}'; a number above 0 is accepted"
        ):
            read_image("photo.png", tmp_path)


def test_what_is_no_file_is_named_and_nothing_waits(tmp_path):
    (tmp_path / "device.jpg").symlink_to("/dev/null")
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "pipe.jpg")
    for name in ("device", "folder", "pipe"):
        with pytest.raises(BrokenImageError, match=rf"{name}\.jpg cannot be read: it is not a regular file"):
            read_header(tmp_path, f"{name}.jpg", upright=True)


def test_a_reason_of_several_lines_is_cut_to_the_first(picture, tmp_path, monkeypatch):
    def fail(*arguments, **options):
        raise ValueError("broken\n  at 0x30")

    picture.save(tmp_path / "photo.png")
    monkeypatch.setattr(Image, "open", fail)
    with pytest.raises(BrokenImageError, match=r"^The image photo\.png cannot be read: broken$"):
        read_image("photo.png", tmp_path)
