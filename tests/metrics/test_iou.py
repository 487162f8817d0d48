from __future__ import annotations

import json
import math
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from semi_med.metrics.evaluate import evaluate
from semi_med.metrics.iou import iou_of, over_seeds, pixel_counts

CLASSES = {1: "ground glass", 2: "consolidation", 5: "effusion"}
LABEL = np.array([[0, 0, 1, 1], [2, 2, 2, 255], [0, 1, 1, 0]])
FOUND = np.array([[0, 1, 1, 1], [2, 2, 0, 2], [0, 1, 7, 0]])  # 7 is no class


def test_pixels_are_counted_by_hand():
    counts = pixel_counts(FOUND, LABEL, values=[1, 2, 5], ignored=255)
    assert counts.tolist() == [[3, 1, 0, 0], [1, 3, 0, 0], [1, 0, 2, 0], [0, 0, 0, 0]]
    assert pixel_counts(FOUND, LABEL, values=[1, 2, 5]).sum() == LABEL.size


def test_the_iou_of_each_class_and_the_mean_of_those_that_occur():
    found = iou_of(pixel_counts(FOUND, LABEL, values=[1, 2, 5], ignored=255), classes=CLASSES)
    assert found["background"] == pytest.approx(3 / 6)
    assert found["ground glass"] == pytest.approx(3 / 5)
    assert found["consolidation"] == pytest.approx(2 / 3)
    assert math.isnan(found["effusion"])
    assert found["mean IoU"] == pytest.approx((3 / 6 + 3 / 5 + 2 / 3) / 3)


def test_pixels_of_all_cases_are_taken_together_and_not_case_by_case(tmp_path: Path):
    for folder, values in {"labels": ([1] * 8, [1, 0, 0, 0, 0, 0, 0, 0]), "found": ([1] * 8, [0] * 8)}.items():
        (tmp_path / folder).mkdir()
        for number, row in enumerate(values):
            array = np.array(row, dtype=np.uint8).reshape(2, 2, 2)
            nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / folder / f"case_{number}.nii.gz")
    files = {"output": tmp_path / "t.csv", "classes": {1: "vessel"}}
    result = evaluate(tmp_path / "found", tmp_path / "labels", iou=True, **files)
    assert result.iou["vessel"] == pytest.approx(8 / 9)  # by case it would be (1 + 0) / 2
    assert result.iou["background"] == pytest.approx(7 / 8)
    written = json.loads((tmp_path / "t_summary.json").read_text())
    assert written["iou"] == result.iou
    assert "background included" in written["definitions"]["iou"]
    plain = evaluate(tmp_path / "found", tmp_path / "labels", **files)
    assert plain.iou == {}
    assert "iou" not in json.loads((tmp_path / "t_summary.json").read_text())


def test_over_seeds_there_are_mean_and_sd():
    runs = {("unimatch", "2"): {2: {"vessel": 0.6}, 1: {"vessel": 0.5}}, ("supervised", "2"): {1: {"vessel": math.nan}}}
    first, second = over_seeds(runs)
    assert (first["mean"], first["seeds"], first["by_seed"]) == (pytest.approx(0.55), 2, "1:0.5 2:0.6")
    assert first["sd"] == pytest.approx(math.sqrt(0.005))
    assert second["seeds"] == 0 and math.isnan(second["mean"]) and math.isnan(second["sd"])
