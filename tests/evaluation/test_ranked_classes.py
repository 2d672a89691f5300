"""Ranked classes from a CSV or an array, and what is said of others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from iir_fast.evaluation.ranked_classes import read_ranked_classes

IDS, CLASSES = ("a.jpg", "b, c.jpg"), ("ant", "bee", "cat")


def read(file: Path, classes: tuple[str, ...] = CLASSES) -> list[list[int]]:
    found = read_ranked_classes(file, IDS, classes)
    assert all(ranked.dtype == np.int64 for ranked in found)
    return [ranked.tolist() for ranked in found]


def test_a_csv_names_classes_or_numbers_them_in_any_order_of_images(tmp_path: Path) -> None:
    file = tmp_path / "ranked.csv"
    file.write_bytes(b'\xef\xbb\xbf"b, c.jpg",cat, 0\r\n\r\na.jpg,1\r\n')
    assert read(file) == [[1], [2, 0]]
    file.write_text('a.jpg,10,9\n"b, c.jpg",9\n')
    assert read(file, ("9", "10")) == [[1, 0], [0]]
    file.write_bytes(b'"two\r\nlines.jpg",bee\r\n')
    assert read_ranked_classes(file, ["two\r\nlines.jpg"], CLASSES)[0].tolist() == [1]


@pytest.mark.parametrize("dtype", ["u1", ">i4", "i8", "u8"])
def test_an_array_has_a_row_for_each_image(tmp_path: Path, dtype: str) -> None:
    np.save(tmp_path / "ranked.npy", np.array([[1, 0], [2, 1]], dtype))
    np.savez(tmp_path / "ranked.npz", np.array([[1, 0], [2, 1]], dtype))
    assert read(tmp_path / "ranked.npy") == read(tmp_path / "ranked.npz") == [[1, 0], [2, 1]]


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a.jpg,0\n", r"1 wrong: 'b, c\.jpg' is missing"),
        ("", "2 wrong: 'a.jpg' is missing, 'b, c.jpg' is missing"),
        ('a.jpg,0\n"b, c.jpg",1\na.jpg,1\n', "line 3: 'a.jpg' is there twice"),
        ('a.jpg,0\n"b, c.jpg",1\nd.jpg,1\n', "line 3: 'd.jpg' is no image of the split"),
        ('a.jpg\n"b, c.jpg",1\n', "line 1: '' is not of different classes of the data set"),
        ('a.jpg,dog\n"b, c.jpg",1\n', "line 1: 'dog' is not of different classes"),
        ('a.jpg,3\n"b, c.jpg",-1\n', "2 wrong: line 1: '3' is not of .*, line 2: '-1' is not of"),
        ('a.jpg,0,ant\n"b, c.jpg",1\n', "line 1: '0,ant' is not of different classes"),
        ("\xff", "1 wrong|is not a CSV in UTF-8"),
        ("x,0\n" * 30, "32 wrong: line 1: .*, and 12 more"),
    ],
)
def test_all_that_is_wrong_with_a_csv_is_named(tmp_path: Path, text: str, sentence: str) -> None:
    file = tmp_path / "ranked.csv"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(ValueError, match=rf"ranked\.csv.*{sentence}"):
        read(file)


@pytest.mark.parametrize(
    ("array", "sentence"),
    [
        (np.zeros((3, 1), int), r"is int64 \[3, 1\]; integers \[2, k\] are accepted, a row for each image"),
        (np.zeros((2, 0), int), r"is int64 \[2, 0\]; integers"),
        (np.zeros(2, int), r"is int64 \[2\]; integers"),
        (np.eye(2), r"is float64 \[2, 2\]; integers"),
        (np.array([[0, 3], [0, 1]]), "1 wrong: row 0 is not of different classes from 0 to 2"),
        (np.array([[0, 1], [0, -1]]), "1 wrong: row 1 is not"),
        (np.array([[0, 0], [1, 1]]), "2 wrong: row 0 is not .*, row 1 is not"),
        (np.array([[0, 1], [1, 1]]), "1 wrong: row 1 is not"),
    ],
)
def test_another_array_is_refused(tmp_path: Path, array: NDArray[Any], sentence: str) -> None:
    np.save(tmp_path / "ranked.npy", array)
    with pytest.raises(ValueError, match=rf"ranked\.npy.*{sentence}"):
        read(tmp_path / "ranked.npy")


@pytest.mark.parametrize("name", ["ranked.csv", "ranked.npy"])
def test_a_missing_file_and_a_pipe_are_named(tmp_path: Path, name: str) -> None:
    with pytest.raises(FileNotFoundError, match=f"{name}.*does not exist"):
        read(tmp_path / name)
    os.mkfifo(tmp_path / name)
    with pytest.raises((ValueError, FileNotFoundError), match=rf"{name}.* not a (regular )?file"):
        read(tmp_path / name)
