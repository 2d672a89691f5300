"""What there is to doubt of a box: maps that agree, maps that do not, and a map that has no box."""

from __future__ import annotations

import numpy as np
import pytest

from iir_fast.localization.doubt import Doubt, weigh


def disc(x: int, y: int, radius: int, power: float = 1.0) -> np.ndarray:
    """A map that falls off from a centre to the radius; a low power makes a plateau."""
    rows, columns = np.mgrid[:224, :224]
    return np.clip(1 - np.hypot(columns - x, rows - y) / radius, 0, 1) ** power


PLATEAU = disc(110, 110, 60, 0.05)


def test_a_plateau_that_every_map_shares_leaves_hardly_a_doubt():
    doubt = weigh(PLATEAU, 0.5, PLATEAU, [PLATEAU, PLATEAU], 0.5)
    assert doubt.agreement > 0.95
    assert doubt.stability > 0.95
    assert doubt.probability == 0.5


def test_the_doubt_is_what_seven_numbers_are_short_of_one():
    assert Doubt(1, 1, 1).value == 0
    assert Doubt(0, 0, 0).value == 1
    assert Doubt(0.5, 0.25, 0.75).value == pytest.approx(1 - (0.5 + 0.5 + 4 * 0.25 + 0.75) / 7)


def test_maps_that_see_another_object_lower_the_agreement_alone():
    same = weigh(PLATEAU, 0.5, PLATEAU, [PLATEAU, PLATEAU], 0.5)
    one = weigh(PLATEAU, 0.5, PLATEAU, [disc(30, 30, 20, 0.05), PLATEAU], 0.5)
    both = weigh(PLATEAU, 0.5, PLATEAU, [disc(30, 30, 20, 0.05), disc(190, 190, 20, 0.05)], 0.5)
    assert one.agreement == pytest.approx(same.agreement / 2)
    assert both.agreement == 0
    assert one.stability == both.stability == same.stability
    assert same.value < one.value < both.value


def test_a_slope_whose_box_moves_with_the_threshold_is_less_stable():
    slope = disc(110, 110, 100)
    on_slope = weigh(slope, 0.5, slope, [slope, slope], 0.5)
    on_plateau = weigh(PLATEAU, 0.5, PLATEAU, [PLATEAU, PLATEAU], 0.5)
    # Sides at 0.3, 0.4, 0.5 and 0.6 are 140, 120, 100 and 80.
    expected = ((100 / 140) ** 2 + (100 / 120) ** 2 + 1 + (80 / 100) ** 2) / 4
    assert on_slope.stability == pytest.approx(expected, abs=0.02)
    assert on_slope.stability < on_plateau.stability


def test_a_refined_box_is_weighed_against_the_maps_as_they_were():
    refined = weigh(disc(190, 190, 20, 0.05), 0.5, PLATEAU, [PLATEAU, PLATEAU], 0.5)
    assert refined == Doubt(0, 0, 0.5)


def test_nothing_agrees_with_a_constant_map():
    flat = np.zeros((224, 224))
    assert weigh(flat, 0.0, flat, [flat, flat], 0.5) == Doubt(0, 0, 0.5)
