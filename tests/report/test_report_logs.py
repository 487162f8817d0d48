from __future__ import annotations

import numpy as np
import pytest

from semi_med.report.logs import loss_columns, read_log, smooth


def test_the_later_line_counts_where_a_resumed_run_repeats_an_iteration(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("iteration,loss\n10,1.0\n20,0.9\n30,0.8\n20,0.7\n")
    log = read_log(path)
    assert log["iteration"].tolist() == [10, 20, 30]
    assert log["loss"].tolist() == [1.0, 0.7, 0.8]


def test_a_line_that_was_cut_off_is_dropped_and_an_empty_cell_is_nan(tmp_path):
    path = tmp_path / "train.csv"
    path.write_text("iteration,loss,agreement\n10,1.0,\n20,0.9,0.5\n30,0.")
    log = read_log(path)
    assert log["iteration"].tolist() == [10, 20]
    assert np.isnan(log["agreement"][0])


@pytest.mark.parametrize("text", [None, "", "iteration,loss\n", "a,b\n1,2\n", "\x00\x01"])
def test_no_log_is_an_empty_one(tmp_path, text):
    path = tmp_path / "train.csv"
    if text is not None:
        path.write_text(text)
    assert read_log(path) == {}


def test_terms_of_the_loss_are_told_from_bookkeeping_and_health():
    names = ["iteration", "seconds", "learning_rate", "supervised", "loss", "dynamic_1", "confident_2", "agreement"]
    names += ["unsupervised_weight", "accepted", "confidence", "certain", "score", "discriminator_labeled"]
    names += ["pseudo_label_dice"]
    assert loss_columns(dict.fromkeys(names, np.zeros(1))) == ["loss", "supervised", "dynamic_1"]


def test_smoothing_is_the_mean_of_the_neighbours_and_skips_undefined_values():
    values = np.array([0.0, 3.0, np.nan, 9.0, 0.0, 0.0])
    np.testing.assert_allclose(smooth(values, points=3), [1.5, 1.5, 6.0, 4.5, 3.0, 0.0])
