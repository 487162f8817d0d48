from __future__ import annotations

import json
import math

import numpy as np
import pytest

from semi_med.errors import InputError
from semi_med.metrics.case import METRICS
from semi_med.metrics.files import TABLE_COLUMNS, read_table, write_csv, write_json
from semi_med.metrics.table import OVERALL, bootstrap_interval, case_means, paired_difference, summarize

NAN = math.nan


def row(case, dice, *, value=1, **others):
    cells = {**dict.fromkeys(METRICS, 1.0), "dice": dice, "prediction_ml": 2.0, "label_ml": 2.5, "status": "ok"}
    return {"case": case, "class": value, "class_name": f"class {value}"} | cells | others


def rows(values, **others):
    return [row(f"c{number:02}", value, **others) for number, value in enumerate(values)]


def cell(summary, metric, name="class 1"):
    return next(line for line in summary if line["metric"] == metric and line["class_name"] == name)


def test_undefined_values_are_counted_and_left_out_of_the_mean():
    line = cell(summarize(rows([0.8, NAN, 0.6])), "dice")
    assert (line["cases"], line["n"], line["n_undefined"]) == (3, 2, 1)
    assert (line["mean"], line["median"]) == pytest.approx((0.7, 0.7))
    assert line["sd"] == pytest.approx(math.sqrt(0.02))


def test_a_metric_without_any_value_is_nan_and_never_zero():
    line = cell(summarize(rows([0.5, 0.5], hd95_mm=NAN)), "hd95_mm")
    assert (line["n"], line["n_undefined"]) == (0, 2)
    assert all(math.isnan(line[name]) for name in ("mean", "sd", "median", "low", "high"))


def test_the_overall_value_of_a_case_is_the_mean_of_its_defined_classes():
    table = [row("a", 0.8), row("a", 0.6, value=2), row("b", 0.4), row("b", NAN, value=2)]
    line = cell(summarize(table), "dice", OVERALL)
    assert (line["cases"], line["n"], line["n_undefined"]) == (2, 2, 1)
    assert line["mean"] == pytest.approx(0.55)  # a: 0.7, b: 0.4


def test_one_class_has_no_overall_row():
    assert {line["class_name"] for line in summarize(rows([0.5, 0.6]))} == {"class 1"}


def test_the_interval_is_the_same_each_time_and_moves_with_the_seed():
    values = np.random.default_rng(0).random(12)
    assert bootstrap_interval(values) == bootstrap_interval(values)
    assert bootstrap_interval(values) != bootstrap_interval(values, seed=1)


def test_the_interval_is_near_the_normal_one_for_many_well_behaved_cases():
    values = np.random.default_rng(0).normal(0.8, 0.05, 400)
    interval = bootstrap_interval(values)
    half = 1.96 * values.std(ddof=1) / 20
    assert (interval.low, interval.high) == pytest.approx((values.mean() - half, values.mean() + half), abs=0.001)


def test_one_case_has_no_interval_and_says_so():
    interval = bootstrap_interval([0.9])
    assert math.isnan(interval.low) and math.isnan(interval.high)
    assert interval.note == "no interval: 1 case"


def test_equal_values_give_an_interval_without_width_and_say_so():
    interval = bootstrap_interval([0.9] * 12)
    assert (interval.low, interval.high, interval.note) == (0.9, 0.9, "all values are equal")


def test_few_cases_carry_a_warning():
    assert "only 3 cases" in bootstrap_interval([0.1, 0.2, 0.4]).note


def test_the_interval_refuses_undefined_values():
    with pytest.raises(InputError, match="finite"):
        bootstrap_interval([0.9, NAN])


def test_a_paired_difference_counts_wins_ties_and_losses_by_case():
    found = paired_difference(rows([0.9, 0.8, 0.7, 0.5]), rows([0.8, 0.6, 0.7, 0.6]))
    assert (found.n, found.wins, found.ties, found.losses) == (4, 2, 1, 1)
    assert found.mean == pytest.approx(0.05)
    assert found.low < found.mean < found.high


def test_a_smaller_distance_is_a_win_and_the_difference_keeps_its_sign():
    found = paired_difference(rows([0.9] * 2, hd95_mm=2.0), rows([0.9] * 2, hd95_mm=5.0), metric="hd95_mm")
    assert (found.wins, found.losses, found.mean) == (2, 0, -3.0)


def test_a_pair_with_an_undefined_side_is_left_out_and_counted():
    found = paired_difference(rows([0.9, NAN, 0.7]), rows([0.8, 0.6, 0.6]))
    assert (found.n, found.n_undefined) == (2, 1)
    assert found.mean == pytest.approx(0.1)


def test_a_class_that_only_one_run_defines_does_not_move_the_difference_of_its_case():
    a = [row("a", 0.8), row("a", 0.1, value=2), row("b", 0.8), row("b", 0.8, value=2)]
    b = [row("a", 0.7), row("a", NAN, value=2), row("b", 0.7), row("b", 0.7, value=2)]
    assert paired_difference(a, b).by_case == pytest.approx({"a": 0.1, "b": 0.1})


def test_runs_on_different_cases_are_not_compared():
    with pytest.raises(InputError, match=r"c02 \(class 1\)"):
        paired_difference(rows([0.9, 0.8]), rows([0.9, 0.8, 0.7]))


def test_a_case_that_comes_twice_is_an_error():
    with pytest.raises(InputError, match="comes twice"):
        case_means([row("a", 0.5), row("a", 0.6)])


def test_a_table_comes_back_from_csv_as_it_was(tmp_path):
    table = [row("case, with comma", NAN, status="both empty"), row("b", 0.123456789, value=2)]
    found = read_table(write_csv(tmp_path / "new" / "table.csv", table))
    assert list(found[0]) == list(TABLE_COLUMNS)
    assert math.isnan(found[0]["dice"])
    assert {**found[0], "dice": 0} == {**table[0], "dice": 0}
    assert found[1] == table[1]


def test_an_undefined_number_is_spelled_nan_in_csv_and_null_in_json(tmp_path):
    text = write_csv(tmp_path / "table.csv", rows([NAN])).read_text()
    assert text.splitlines()[1].startswith("c00,1,class 1,nan,")
    assert json.loads(write_json(tmp_path / "a.json", {"mean": NAN}).read_text()) == {"mean": None}


def test_a_file_that_is_no_table_is_named_in_the_error(tmp_path):
    path = tmp_path / "other.csv"
    path.write_text("a,b\n1,2\n")
    with pytest.raises(InputError, match=r"other\.csv.*columns case, class"):
        read_table(path)


def test_a_cell_that_is_no_number_is_named_with_its_line(tmp_path):
    path = write_csv(tmp_path / "table.csv", rows([0.5, 0.6]))
    path.write_text(path.read_text().replace("0.6", "good"))
    with pytest.raises(InputError, match="line 3"):
        read_table(path)


def test_nothing_is_left_behind_when_a_table_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError):
        write_csv(tmp_path / "file" / "table.csv", rows([0.5]))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
