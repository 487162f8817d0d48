from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from semi_med.errors import InputError
from semi_med.metrics import compare_methods, method_mean, share_of_gap
from semi_med.metrics.case import METRICS
from semi_med.metrics.crossed import crossed_intervals, ratio_interval

NAN = math.nan


def row(case, dice, *, value=1, **others):
    return {
        "case": case,
        "class": value,
        "class_name": f"class {value}",
        **dict.fromkeys(METRICS, 1.0),
        "dice": dice,
    } | others


def run(values, **others):
    return [row(f"c{number:02}", value, **others) for number, value in enumerate(values)]


def runs(*by_seed):
    return {seed: run(values) for seed, values in enumerate(by_seed, start=1)}


BASE = [0.70, 0.60, 0.80, 0.75, 0.65, 0.72]


def drawn(rng, *, seeds, subjects, seed_sd, subject_sd=0.02, run_sd=0.02):
    """Made-up paired differences (seeds, subjects) whose true mean is zero."""
    return (
        rng.normal(0, seed_sd, (seeds, 1))
        + rng.normal(0, subject_sd, subjects)
        + rng.normal(0, run_sd, (seeds, subjects))
    )


# -- what is compared, by hand


def test_the_difference_is_paired_by_seed_and_case():
    a = runs([0.9, 0.7], [0.8, 0.8])
    b = runs([0.8, 0.7], [0.6, 0.5])
    found = compare_methods(a, b)
    assert found.mean == pytest.approx(0.15)  # (0.1 + 0.0 + 0.2 + 0.3) / 4
    assert (found.mean_a, found.mean_b) == pytest.approx((0.8, 0.65))
    assert found.by_seed == pytest.approx({1: 0.05, 2: 0.25})
    assert found.by_case == pytest.approx({"c00": 0.15, "c01": 0.15})
    assert (found.n_seeds, found.n_cases, found.n_subjects, found.seeds_better) == (2, 2, 2, 2)


def test_a_case_is_won_tied_or_lost_by_its_difference_averaged_over_seeds():
    a = runs([0.706, 0.704, 0.68, 0.9], [0.706, 0.704, 0.70, 0.5])
    b = runs([0.70] * 4, [0.70] * 4)
    found = compare_methods(a, b)  # +0.006, +0.004, -0.01, 0
    assert (found.wins, found.ties, found.losses) == (1, 2, 1)


def test_a_smaller_distance_wins_and_keeps_its_sign():
    near, far = ({1: run([0.9] * 3, hd95_mm=value)} for value in (2.0, 5.0))
    found = compare_methods(near, far, metric="hd95_mm")
    assert (found.mean, found.wins, found.losses, found.seeds_better) == (-3.0, 3, 0, 1)


def test_an_undefined_value_is_left_out_class_by_class_and_counted():
    a = {1: [row("a", 0.8), row("a", 0.1, value=2), row("b", 0.8), row("b", NAN, value=2)]}
    b = {1: [row("a", 0.7), row("a", NAN, value=2), row("b", 0.7), row("b", NAN, value=2)]}
    found = compare_methods(a, b)
    assert found.by_case == pytest.approx({"a": 0.1, "b": 0.1})
    assert found.n_undefined == 2


def test_a_case_without_any_value_is_left_out_and_not_counted_as_zero():
    found = compare_methods({1: run([NAN, 0.8, 0.9])}, {1: run([0.5, 0.7, 0.8])})
    assert (found.n_cases, found.n_undefined, found.mean) == (2, 1, pytest.approx(0.1))


def test_a_mean_without_any_value_is_undefined_and_says_so():
    found = compare_methods({1: run([NAN, NAN])}, {1: run([0.5, 0.7])})
    assert math.isnan(found.mean) and math.isnan(found.low)
    assert found.note == "no case has a value in both"


def test_a_seed_that_only_one_method_has_is_left_out_and_named():
    found = compare_methods(runs(BASE, BASE, BASE), runs(BASE, BASE))
    assert (found.n_seeds, found.left_out) == (2, (3,))
    assert "without seed 3" in found.note


def test_methods_without_a_common_seed_are_refused():
    with pytest.raises(InputError, match="none in common"):
        compare_methods({1: run(BASE)}, {2: run(BASE)})


def test_runs_on_other_cases_are_refused_by_name():
    with pytest.raises(InputError, match=r"c05 \(class 1\)"):
        compare_methods({1: run(BASE)}, {1: run(BASE[:-1])})


def test_a_case_that_comes_twice_is_refused():
    with pytest.raises(InputError, match="comes twice"):
        method_mean({1: [row("a", 0.5), row("a", 0.6)]})


def test_every_case_needs_a_subject():
    with pytest.raises(InputError, match="c01: has no subject"):
        method_mean({1: run([0.5, 0.6])}, subjects={"c00": "s"})


def test_the_mean_of_a_method_is_over_seeds_and_cases():
    found = method_mean(runs([0.9, 0.7], [0.8, 0.4]))
    assert (found.mean, found.by_seed[2], found.by_case["c00"]) == pytest.approx((0.7, 0.6, 0.85))


# -- intervals


def test_identical_runs_differ_by_nothing_and_say_so():
    found = compare_methods(runs(BASE, BASE[::-1]), runs(BASE, BASE[::-1]))
    assert (found.mean, found.low, found.high) == (0, 0, 0)
    assert (found.wins, found.ties, found.losses) == (0, 6, 0)
    assert "all values are equal" in found.note


def test_a_constant_difference_has_an_interval_without_width():
    a = runs([0.5, 0.6, 0.7], [0.6, 0.7, 0.8])
    b = runs([0.25, 0.35, 0.45], [0.35, 0.45, 0.55])
    found = compare_methods(a, b)
    assert (found.low, found.high) == pytest.approx((0.25, 0.25))


def test_one_seed_gives_the_interval_over_subjects_and_says_that_it_says_no_more():
    found = compare_methods({1: run([0.9, 0.8, 0.7])}, {1: run([0.8, 0.75, 0.6])})
    assert (found.low, found.high) == (found.cases_low, found.cases_high)
    assert found.low < found.mean < found.high
    assert "says nothing about other seeds" in found.note


def test_one_subject_has_no_interval_however_many_scans_and_seeds():
    found = compare_methods(
        runs([0.9, 0.8], [0.9, 0.7], [0.8, 0.9]),
        runs([0.5] * 2, [0.5] * 2, [0.5] * 2),
        subjects={"c00": "s", "c01": "s"},
    )
    assert (found.n_cases, found.n_subjects) == (2, 1)
    assert all(map(math.isnan, (found.low, found.high, found.cases_low, found.cases_high)))
    assert "no interval: one subject" in found.note


def test_two_scans_of_a_subject_count_as_one_unit():
    values = np.random.default_rng(0).normal(0.02, 0.03, (3, 12))
    once = crossed_intervals(values)
    twice = crossed_intervals(np.repeat(values, 2, axis=1), subjects=np.repeat(np.arange(12), 2))
    np.testing.assert_allclose(twice, once)
    given = crossed_intervals(np.repeat(values, 2, axis=1))[1]
    assert given[1] - given[0] < 0.8 * (once[1][1] - once[1][0])


def test_subjects_are_read_from_the_names_of_the_cases():
    difference = np.random.default_rng(3).normal(0.02, 0.03, 8)
    values, base = 0.5 + np.repeat(difference, 2), [0.5] * 16
    pairs = {f"c{number:02}": f"s{number // 2}" for number in range(16)}
    found = compare_methods({1: run(values)}, {1: run(base)}, subjects=pairs)
    alone = compare_methods({1: run(0.5 + difference)}, {1: run(base[:8])})
    assert found.n_subjects == 8
    assert (found.low, found.high) == pytest.approx((alone.low, alone.high))


def test_an_interval_over_subjects_is_near_that_of_student():
    values = np.random.default_rng(1).normal(0.03, 0.05, (1, 30))
    low, high = crossed_intervals(values)[0]
    wanted = stats.t.interval(0.95, 29, values.mean(), values.std(ddof=1) / math.sqrt(30))
    assert (low, high) == pytest.approx(wanted, abs=0.0015)


def test_with_many_seeds_and_subjects_both_variances_add_up():
    values = drawn(np.random.default_rng(2), seeds=30, subjects=40, seed_sd=0.03)
    low, high = crossed_intervals(values)[0]
    wanted = math.sqrt(values.mean(axis=1).var(ddof=1) / 30 + values.mean(axis=0).var(ddof=1) / 40)
    assert (high - low) / 2 == pytest.approx(2.0 * wanted, rel=0.06)


def test_three_seeds_that_disagree_give_a_much_wider_interval_than_the_cases_alone():
    rng = np.random.default_rng(0)
    whole, given = crossed_intervals(np.array([[0.00], [0.03], [0.06]]) + rng.normal(0, 0.005, (3, 25)))
    assert given[0] > 0 and whole[0] < 0
    assert whole[1] - whole[0] > 5 * (given[1] - given[0])


def test_intervals_are_the_same_each_time():
    a, b = runs(BASE, BASE[::-1]), runs(BASE[::-1], BASE[1:] + BASE[:1])
    assert compare_methods(a, b) == compare_methods(a, b)
    assert compare_methods(a, b, seed=1).low != compare_methods(a, b).low


def test_more_confidence_gives_a_wider_interval():
    a, b = runs(BASE, BASE[::-1]), runs(BASE[::-1], BASE[1:] + BASE[:1])
    assert compare_methods(a, b, confidence=0.99).high > compare_methods(a, b).high


@pytest.mark.parametrize(("seeds", "seed_sd"), [(3, 0.0), (3, 0.01), (3, 0.04), (5, 0.02)])
def test_no_true_difference_is_called_one_in_about_one_of_twenty(seeds, seed_sd):
    rng = np.random.default_rng([seeds, round(1000 * seed_sd)])
    trials = 150
    spans = [crossed_intervals(drawn(rng, seeds=seeds, subjects=12, seed_sd=seed_sd))[0] for _ in range(trials)]
    wrong = sum(low > 0 or high < 0 for low, high in spans)
    assert wrong <= 17  # above 11 % in 150 trials comes once in a thousand if the rate is 5 %


def test_taking_runs_for_cases_would_claim_too_much():
    rng = np.random.default_rng(7)
    wrong = 0
    for _ in range(100):
        flat = drawn(rng, seeds=3, subjects=12, seed_sd=0.02).reshape(1, -1)
        low, high = crossed_intervals(flat)[0]
        wrong += low > 0 or high < 0
    assert wrong > 25


def test_a_difference_that_is_there_is_found_with_three_seeds():
    rng = np.random.default_rng(5)
    spans = [crossed_intervals(0.03 + drawn(rng, seeds=3, subjects=25, seed_sd=0.005))[0] for _ in range(60)]
    assert sum(low > 0 for low, _ in spans) > 54


# -- share of a gap


def test_half_way_is_half_of_the_gap_with_no_doubt_where_every_cell_says_so():
    rng = np.random.default_rng(0)
    floor, ceiling = rng.uniform(0.6, 0.7, (3, 8)), rng.uniform(0.8, 0.9, (3, 8))
    found = share_of_gap(runs(*(floor + ceiling) / 2), runs(*floor), runs(*ceiling))
    assert (found.share, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert found.gap == pytest.approx((ceiling - floor).mean())


def test_the_share_has_an_interval_around_it():
    rng = np.random.default_rng(1)
    floor = rng.uniform(0.6, 0.7, (3, 20))
    gain, gap = 0.06 + rng.normal(0, 0.01, (3, 20)), 0.10 + rng.normal(0, 0.01, (3, 20))
    found = share_of_gap(runs(*(floor + gain)), runs(*floor), runs(*(floor + gap)))
    assert found.share == pytest.approx(gain.mean() / gap.mean())
    assert 0.4 < found.low < found.share < found.high < 0.8


def test_the_interval_of_a_share_holds_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(2)
    held = 0
    for _ in range(120):
        gap = 0.06 + drawn(rng, seeds=3, subjects=15, seed_sd=0.01)
        gain = 0.6 * gap + drawn(rng, seeds=3, subjects=15, seed_sd=0.005, run_sd=0.01)
        low, high = ratio_interval(gain, gap)
        held += low <= 0.6 <= high
    assert held >= 107  # below 89 % in 120 trials comes less than once in a hundred if the rate is 95 %


@pytest.mark.parametrize(
    ("ceiling", "reason"),
    [
        ([0.705, 0.605, 0.805, 0.755, 0.655, 0.725], "0.5 Dice points, too small"),
        ([0.90, 0.40, 1.00, 0.55, 0.85, 0.72], "includes zero"),
        ([0.60, 0.50, 0.70, 0.65, 0.55, 0.62], "too small"),
        ([NAN] * 6, "no case has a value"),
    ],
)
def test_no_share_is_given_of_a_gap_that_is_not_there(ceiling, reason):
    found = share_of_gap(runs(BASE[::-1]), runs(BASE), runs(ceiling))
    assert math.isnan(found.share) and math.isnan(found.low)
    assert reason in found.note


def test_a_share_is_of_an_overlap_only():
    with pytest.raises(InputError, match="wanted one of dice, jaccard"):
        share_of_gap(runs(BASE), runs(BASE), runs(BASE), metric="hd95_mm")


# -- a class that is not there


def absent(case, found):
    """Nothing to find: undefined if nothing was found, else 0."""
    return row(case, 0.0 if found else NAN, value=2, status="empty label" if found else "both empty")


def test_a_method_that_invents_a_class_loses_to_one_that_does_not():
    a = {1: [row("x", 0.8), absent("x", False), row("y", 0.8), absent("y", False)]}
    b = {1: [row("x", 0.8), absent("x", True), row("y", 0.8), absent("y", False)]}
    found = compare_methods(a, b)
    assert found.by_case == pytest.approx({"x": 0.5, "y": 0.0})  # (0.8 + 1) / 2 against (0.8 + 0) / 2
    assert found.n_undefined == 1  # class 2 of y, where both are right
    assert compare_methods(b, a).mean == pytest.approx(-found.mean)


def test_a_value_that_is_missing_for_another_reason_is_left_out():
    a = {1: [row("x", 0.8), row("x", NAN, value=2, status="missing")]}
    b = {1: [row("x", 0.6), row("x", 0.1, value=2, status="ok")]}
    found = compare_methods(a, b)
    assert found.mean == pytest.approx(0.2)
    assert found.n_undefined == 1
