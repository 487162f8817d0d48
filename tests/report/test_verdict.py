from __future__ import annotations

import math
from pathlib import Path

import pytest

from semi_med.metrics.case import METRICS
from semi_med.report.verdict import interval, judge, number, signed
from semi_med.report.views import RunView


def run(name, dice):
    rows = [
        {"case": f"c{place}", "class": 1, "class_name": "x", **dict.fromkeys(METRICS, 1.0), "dice": value}
        for place, value in enumerate(dice)
    ]
    return RunView(name, Path(), rows)


BASE = [0.80, 0.70, 0.75, 0.60, 0.82, 0.78, 0.71]


def shifted(by, values=BASE):
    return [value + by + 0.001 * place for place, value in enumerate(values)]


@pytest.mark.parametrize(("by", "word"), [(0.05, "better"), (-0.05, "worse"), (-0.003, "no clear difference")])
def test_the_word_follows_the_interval(by, word):
    assert judge(run("a", shifted(by)), run("b", BASE)).word == word


def test_five_wins_of_five_are_not_called_better():
    verdict = judge(run("a", shifted(0.05)[:5]), run("b", BASE[:5]))
    assert verdict.word == "no clear difference"
    assert verdict.difference is not None and verdict.difference.low > 0
    assert "Fewer than 6 cases" in " ".join(verdict.sentences)


def test_the_sentence_carries_the_numbers():
    verdict = judge(run("a", [value + 0.05 for value in BASE]), run("b", BASE))
    assert verdict.sentences[0].startswith(
        "Mean Dice 0.787 against 0.737: a difference of +0.050 (95 % interval over 7"
    )
    assert verdict.sentences[1] == "Better in 7, equal in 0 and worse in 0 of 7 cases."


def test_a_clear_but_tiny_difference_is_called_small():
    verdict = judge(run("a", shifted(0.002)), run("b", BASE))
    assert verdict.word == "better" and "small" in verdict.sentences[-1]


def test_undefined_values_are_mentioned():
    verdict = judge(run("a", [*shifted(0.05), math.nan]), run("b", [*BASE, 0.5]))
    assert verdict.sentences[-1].startswith("1 undefined Dice")


def test_runs_without_a_common_value_are_not_compared():
    assert judge(run("a", [math.nan]), run("b", [0.5])).word == "no comparison"


@pytest.mark.parametrize(("value", "text"), [(0.0214, "+0.021"), (-0.5, "−0.500"), (-0.0001, "0.000"), (math.nan, "–")])
def test_a_signed_number_reads_well(value, text):
    assert signed(value) == text


def test_an_interval_reads_as_words():
    assert (interval(0.1, 0.25), interval(math.nan, 1.0)) == ("0.100 to 0.250", "no interval")
    assert number(-1.0, 1) == "−1.0"
