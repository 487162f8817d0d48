"""Regions: classes measured as one structure."""

import math

import numpy as np
import pytest

from semi_med.errors import InputError
from semi_med.metrics.regions import Region, parse_region, parse_regions, region_metrics

CLASSES = {1: "cavity", 2: "myocardium", 3: "atrium"}
LABEL = np.array([[0, 1, 1, 2, 2, 3]], np.uint8)
PREDICTION = np.array([[0, 1, 2, 2, 0, 3]], np.uint8)


@pytest.mark.parametrize(
    ("text", "values"),
    [("epi=1+2", (1, 2)), ("epi=cavity+myocardium", (1, 2)), ("epi = 2 + cavity ", (1, 2)), ("epi=2+2", (2,))],
)
def test_classes_are_named_by_number_or_name(text, values):
    assert parse_region(text, classes=CLASSES) == Region("epi", values)


@pytest.mark.parametrize("text", ["epi", "=1+2", "epi=", "epi=1+", "epi=4", "epi=ventricle", "epi=0+1", "epi=1.5"])
def test_anything_else_is_refused_with_the_classes_there_are(text):
    with pytest.raises(InputError, match="1 cavity, 2 myocardium, 3 atrium") as caught:
        parse_region(text, classes={0: "background", **CLASSES})
    assert caught.value.code == "REGION"


def test_two_regions_of_one_name_are_refused():
    with pytest.raises(InputError, match="'epi' is named twice"):
        parse_regions(["epi=1", "epi=1+2"], classes=CLASSES)


def test_a_region_is_one_object_whatever_is_confused_inside_it():
    (row,) = region_metrics(PREDICTION, LABEL, regions=[Region("epi", (1, 2))], spacing=(1.0, 1.0))
    # three pixels of four are found, which of both classes does not matter: 2 * 3 / (3 + 4)
    assert row["dice"] == pytest.approx(6 / 7)
    assert (row["class"], row["class_name"], row["status"]) == ("1+2", "epi", "ok")


def test_regions_may_overlap_and_one_that_is_nowhere_is_undefined():
    regions = [Region("epi", (1, 2)), Region("all", (1, 2, 3)), Region("none", (7,))]
    rows = region_metrics(PREDICTION, LABEL, regions=regions, spacing=None)
    assert [row["dice"] for row in rows[:2]] == [pytest.approx(6 / 7), pytest.approx(8 / 9)]
    assert math.isnan(rows[2]["dice"]) and rows[2]["status"] == "both empty"
