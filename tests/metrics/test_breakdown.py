"""Groups of cases, and slices pooled to volumes; all figures can be checked by hand."""

import math

import pytest

from semi_med.errors import InputError
from semi_med.metrics.breakdown import INCOMPLETE, break_down, name_pattern, pool_volumes
from semi_med.metrics.case import METRICS, overlaps, status_of
from semi_med.metrics.table import ALL_REGIONS, OVERALL

VOLUME = name_pattern(r"(.*)_\d+", option="--volume-pattern")


def row(case: str, prediction: int, label: int, both: int, *, value: int | str = 1, name: str = "tumour") -> dict:
    counts = {"prediction_voxels": prediction, "label_voxels": label, "both_voxels": both}
    head = {"case": case, "class": value, "class_name": name, **dict.fromkeys(METRICS, math.nan)}
    return {**head, **overlaps(prediction, label, both), "status": status_of(prediction, label), **counts}


def lost(case: str) -> dict:
    return {**row(case, 0, 0, 0), "status": "missing prediction"}


def test_the_slices_of_a_volume_are_one_object():
    slices = [row("A_1", 10, 10, 10), row("A_2", 4, 0, 0), row("A_3", 0, 0, 0), row("B_1", 2, 6, 2)]
    a, b = pool_volumes(slices, VOLUME)
    # A: 2 * 10 / (14 + 10); the mean of its slices would be (1 + 0) / 2
    assert (a["volume"], a["slices"], a["dice"]) == ("A", 3, pytest.approx(20 / 24))
    assert a["jaccard"] == pytest.approx(10 / 14)
    assert (a["prediction_voxels"], a["label_voxels"], a["both_voxels"], a["status"]) == (14, 10, 10, "ok")
    assert (b["volume"], b["slices"], b["dice"]) == ("B", 1, 0.5)


def test_a_volume_without_the_class_is_undefined_and_one_where_it_is_invented_is_0():
    none, invented = pool_volumes([row("A_1", 0, 0, 0), row("A_2", 0, 0, 0), row("B_1", 3, 0, 0)], VOLUME)
    assert math.isnan(none["dice"]) and none["status"] == "both empty"
    assert invented["dice"] == 0 and invented["status"] == "empty label"


def test_a_volume_that_lacks_a_slice_is_undefined_and_not_measured_on_the_others():
    a, b, c = pool_volumes(
        [row("A_1", 5, 5, 5), lost("A_2"), row("B_1", 5, 5, 5), row("C_1", 5, 5, 5)], VOLUME, unmeasured=["B_2"]
    )
    assert [found["status"] for found in (a, b, c)] == [INCOMPLETE, INCOMPLETE, "ok"]
    assert math.isnan(a["dice"]) and math.isnan(b["dice"]) and c["dice"] == 1


def test_classes_are_pooled_apart():
    rows = [row("A_1", 2, 2, 2), row("A_1", 2, 2, 1, value=2, name="oedema"), row("A_2", 2, 2, 2)]
    assert [(found["class"], found["dice"]) for found in pool_volumes(rows, VOLUME)] == [(1, 1.0), (2, 0.5)]


def dice_of(lines: list[dict]) -> dict[tuple, tuple]:
    return {
        (line["unit"], line["group"], line["class_name"]): (line["cases"], line["n"], round(line["mean"], 6))
        for line in lines
        if line["metric"] == "dice"
    }


def test_every_group_has_its_own_mean_of_classes_and_of_regions():
    cavity, wall = [{"value": value, "name": name} for value, name in ((1, "cavity"), (2, "wall"))]
    classes = [
        row("p1_ED", 10, 10, 10, **cavity),  # 1.0
        row("p1_ED", 10, 10, 5, **wall),  # 0.5
        row("p1_ES", 10, 10, 4, **cavity),  # 0.4
        row("p1_ES", 10, 10, 8, **wall),  # 0.8
    ]
    regions = [row("p1_ED", 20, 20, 18, value="1+2", name="epi"), row("p1_ES", 20, 20, 14, value="1+2", name="epi")]
    regions += [row("p1_ED", 10, 10, 10, value="1", name="endo"), row("p1_ES", 10, 10, 4, value="1", name="endo")]
    found = dice_of(break_down(classes, regions, group=name_pattern("E[DS]", option="-"), volume=None))
    assert found["case", "all", "cavity"] == (2, 2, 0.7)
    assert found["case", "ED", OVERALL] == (1, 1, 0.75)
    assert found["case", "ES", OVERALL] == (1, 1, 0.6)
    assert found["case", "ED", "epi"] == (1, 1, 0.9)
    assert found["case", "ED", ALL_REGIONS] == (1, 1, 0.95)
    assert found["case", "ES", ALL_REGIONS] == (1, 1, 0.55)
    assert found["case", "all", ALL_REGIONS] == (2, 2, 0.75)
    assert len(found) == 3 * (3 + 3)


def test_a_volume_is_pooled_within_a_group():
    rows = [row("A_ED_1", 4, 4, 4), row("A_ES_1", 4, 4, 0), row("A_ED_2", 4, 4, 2)]
    volume, group = name_pattern("^[A-Z]", option="-"), name_pattern("E[DS]", option="-")
    found = dice_of(break_down(rows, [], group=group, volume=volume))
    assert found["volume", "ED", "tumour"] == (1, 1, 0.75)  # 2 * 6 / 16
    assert found["volume", "ES", "tumour"] == (1, 1, 0.0)
    assert found["volume", "all", "tumour"] == (1, 1, 0.5)  # 2 * 6 / 24
    assert found["case", "all", "tumour"] == (3, 3, 0.5)


def test_volumes_have_no_distances():
    lines = break_down([row("A_1", 1, 1, 1)], [], group=None, volume=VOLUME)
    assert {line["metric"] for line in lines if line["unit"] == "volume"} == {"dice", "jaccard"}


@pytest.mark.parametrize(
    ("text", "found"), [("E[DS]", "ED"), ("_(E[DS])_", "ED"), ("patient[0-9]+", "patient07"), ("(x)?_ED", "_ED")]
)
def test_a_pattern_finds_its_brackets_or_all_it_matches(text, found):
    assert name_pattern(text, option="-")("patient07_ED_2CH") == found


@pytest.mark.parametrize("text", ["E[DS", "(E)(D)"])
def test_what_is_no_pattern_is_refused(text):
    with pytest.raises(InputError, match="--group-pattern") as caught:
        name_pattern(text, option="--group-pattern")
    assert caught.value.code == "PATTERN"


def test_names_that_a_pattern_does_not_match_are_listed():
    with pytest.raises(InputError, match=r"'E\[DS\]' finds nothing in 2 cases: a, b"):
        name_pattern("E[DS]", option="--group-pattern").check(["b", "p_ED", "a"])
