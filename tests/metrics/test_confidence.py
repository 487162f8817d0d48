"""A score of confidence beside true Dice: by numbers that one can check by hand."""

import csv
import json
import math

import numpy as np
import pytest

from semi_med.errors import InputError
from semi_med.inference.io import write_label
from semi_med.metrics.confidence import (
    MEAN,
    expected_dice,
    rank_structures,
    read_calibration,
    read_scores,
)
from semi_med.metrics.evaluate import evaluate


def rows(dice: dict[str, float], name: str = "organ", value: int = 1) -> list[dict]:
    return [{"case": case, "class": value, "class_name": name, "dice": one} for case, one in dice.items()]


def scored(scores: dict[str, float], name: str = "organ") -> dict[tuple[str, str], float]:
    return {(case, name): score for case, score in scores.items()}


def test_a_score_in_the_order_of_dice_leaves_out_the_worst_first():
    (found,) = rank_structures(scored({"a": 0.9, "b": 0.5, "c": 0.7}), rows({"a": 0.8, "b": 0.2, "c": 0.6}))
    assert (found.structure, found.cases, found.undefined) == ("organ", 3, 0)
    assert found.spearman == pytest.approx(1)
    risks = [row["risk"] for row in found.curve]
    assert [row["coverage"] for row in found.curve] == pytest.approx([1, 2 / 3, 1 / 3])
    assert risks == pytest.approx([(0.2 + 0.8 + 0.4) / 3, (0.2 + 0.4) / 2, 0.2])
    assert found.aurc == found.aurc_best == pytest.approx(np.mean(risks))
    assert found.aurc_random == pytest.approx(1.4 / 3)


def test_a_score_in_the_opposite_order_is_worse_than_none_and_is_not_used():
    (found,) = rank_structures(scored({"a": 0.1, "b": 0.5, "c": 0.3}), rows({"a": 0.8, "b": 0.2, "c": 0.6}))
    assert found.spearman == pytest.approx(-1)
    assert found.aurc > found.aurc_random > found.aurc_best
    assert (found.slope, found.offset) == (0, pytest.approx(1.6 / 3))


def test_a_score_that_says_nothing_has_the_risk_of_no_order():
    (found,) = rank_structures(scored(dict.fromkeys("abc", 0.5)), rows({"a": 0.8, "b": 0.2, "c": 0.6}))
    assert math.isnan(found.spearman)
    assert found.aurc == pytest.approx(found.aurc_random)


def test_the_expected_dice_is_a_line_that_was_fitted_to_other_cases():
    dice = {case: 2 * score - 0.8 for case, score in zip("abcd", (0.6, 0.7, 0.8, 0.85), strict=True)}
    (found,) = rank_structures(scored({case: (value + 0.8) / 2 for case, value in dice.items()}), rows(dice))
    assert (found.slope, found.offset) == (pytest.approx(2), pytest.approx(-0.8))
    assert found.error == pytest.approx(0, abs=1e-9)
    assert found.error_raw == pytest.approx(np.mean([0.2, 0.1, 0.0, 0.05]))
    line = {"organ": {"slope": 2.0, "offset": -0.8}}
    assert expected_dice(line, "organ", 0.7) == pytest.approx(0.6)
    assert (expected_dice(line, "organ", 0.1), expected_dice(line, "organ", 1.0)) == (0, 1)
    assert math.isnan(expected_dice(line, "other", 0.7))


def test_what_is_undefined_is_left_out_and_counted():
    dice = {"a": 0.8, "b": math.nan, "c": 0.6, "d": 0.5, "e": 0.4}
    (found,) = rank_structures(scored({"a": 0.9, "b": 0.5, "c": math.nan, "d": 0.7, "e": 0.6}), rows(dice))
    assert (found.cases, found.undefined) == (3, 2)


def test_several_classes_have_their_means_too_and_numbers_stand_for_names():
    first, second = {"a": 0.9, "b": 0.5, "c": 0.7}, {"a": 0.7, "b": 0.7, "c": 0.1}
    found = rank_structures(
        scored(first, "x") | scored(second, "y"), rows(first, "class 1", 1) + rows(second, "class 2", 2)
    )
    assert [one.structure for one in found] == ["x", "y", MEAN]
    assert found[2].mean_dice == pytest.approx((0.8 + 0.6 + 0.4) / 3)


def test_scores_of_something_else_and_too_few_cases_are_refused():
    with pytest.raises(InputError, match="the scores are of x, the labels of y"):
        rank_structures(scored({"a": 1.0}, "x"), rows({"a": 1.0}, "y"))
    with pytest.raises(InputError, match="3 cases or more with a score and a Dice are wanted, organ has 2"):
        rank_structures(scored({"a": 1.0, "b": 0.5}), rows({"a": 1.0, "b": 0.5}))


def test_an_evaluation_compares_the_scores_of_a_prediction(tmp_path):
    table = tmp_path / "volumes.csv"
    lines = ["case,class,confidence"]
    for number in range(4):
        label = np.zeros((3, 4, 5), np.uint8)
        label[:, :, :3] = 1
        write_label(tmp_path / "labels" / f"{number}.nii.gz", label, affine=np.eye(4))
        label[:, :, : 3 - number // 2] = 1
        label[:, :, 3 - number // 2 :] = 0
        write_label(tmp_path / "masks" / f"{number}_seg.nii.gz", label, affine=np.eye(4))
        lines.append(f"{number},organ,{0.9 - 0.1 * number}")
    table.write_text("\n".join(lines) + "\n")
    out = tmp_path / "t.csv"
    result = evaluate(tmp_path / "masks", tmp_path / "labels", output=out, classes={1: "organ"}, scores=table)
    assert [path.name for path in result.written][-2:] == ["t_risk_coverage.csv", "t_confidence.json"]
    (said,) = json.loads((tmp_path / "t_confidence.json").read_text())["structures"]
    assert said["spearman"] == pytest.approx(result.rankings[0].spearman)
    assert said["mean_dice"] == pytest.approx((1 + 1 + 0.8 + 0.8) / 4)
    with (tmp_path / "t_risk_coverage.csv").open() as stream:
        curve = list(csv.DictReader(stream))
    assert [row["cases"] for row in curve] == ["4", "3", "2", "1"]
    assert float(curve[-1]["risk"]) == 0
    line = read_calibration(tmp_path / "t_confidence.json")["organ"]
    assert line["slope"] > 0


@pytest.mark.parametrize("text", ["case,class\na,b\n", "case,class,confidence\na,b,c\n"])
def test_a_table_without_scores_is_refused(tmp_path, text):
    (tmp_path / "v.csv").write_text(text)
    with pytest.raises(InputError, match=r"volumes\.csv that semi-med predict wrote"):
        read_scores(tmp_path / "v.csv")


@pytest.mark.parametrize("text", ["", "{}", '{"structures": [{"structure": "a"}]}'])
def test_a_calibration_that_cannot_be_read_is_refused(tmp_path, text):
    (tmp_path / "c.json").write_text(text)
    with pytest.raises(InputError, match="semi-med evaluate --scores wrote"):
        read_calibration(tmp_path / "c.json")
