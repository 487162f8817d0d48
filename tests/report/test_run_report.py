from __future__ import annotations

import base64
import csv
import math
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from nibabel import Nifti1Image

from semi_med.errors import InputError
from semi_med.inference.io import write_label
from semi_med.metrics.case import case_metrics
from semi_med.report import CaseView, RunView, write_run_report
from semi_med.report.page import choose_cases

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
CASES = [f"c{number}" for number in range(8)]


def block(stop):
    array = np.zeros((12, 14, 8), np.uint8)
    array[2:stop, 3:9, 2:6] = 1
    return array


def table(stops):
    """One row for each case; the label ends at 10, so that another stop costs Dice. A stop of 2 is empty."""
    return [
        {"case": case} | case_metrics(block(stop), block(10), classes={1: "heart"}, spacing=(1, 1, 2))[0]
        for case, stop in zip(CASES, stops, strict=True)
    ]


GOOD, POOR = [10, 9, 10, 9, 10, 9, 10, 8], [8, 7, 8, 7, 8, 7, 9, 8]


@pytest.fixture
def make(tmp_path):
    """Write a report of two runs (or what is given instead) and return its text."""

    def run(name, stops, **others):
        return RunView(name, tmp_path / name, table(stops), **others)

    def write(*, stops=(GOOD, POOR), names=("semi", "labelled"), title="Hearts", cases=(), notes=()):
        runs = [
            run(name, found, settings={"net": {"name": "VNet"}, "seed": number})
            for number, (name, found) in enumerate(zip(names, stops, strict=False))
        ]
        path = write_run_report(tmp_path / "page.html", title=title, runs=runs, cases=cases, notes=notes)
        return path.read_text(encoding="utf-8")

    return write


@pytest.fixture
def case_files(tmp_path):
    image = np.random.default_rng(0).normal(100, 10, (12, 14, 8)).astype(np.float32)
    Nifti1Image(image, AFFINE).to_filename(tmp_path / "c1.nii.gz")
    write_label(tmp_path / "label.nii.gz", block(10), affine=AFFINE)
    write_label(tmp_path / "prediction.nii.gz", block(9), affine=AFFINE)
    return CaseView("c1", tmp_path / "c1.nii.gz", tmp_path / "label.nii.gz", {"semi": tmp_path / "prediction.nii.gz"})


class Page(HTMLParser):
    """Every attribute that can fetch, and the stack of open tags."""

    def __init__(self, text):
        super().__init__()
        self.links, self.tags, self.open = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        if tag not in ("meta", "img", "br", "line", "circle", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("line", "circle"):
            assert self.open.pop() == tag

    handle_startendtag = handle_starttag


def test_the_page_asks_for_nothing_outside_itself(make, case_files):
    text = make(cases=[case_files])
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in Page(text).links)
    assert not re.search(r"https?://|url\(|@import|<script", text)
    assert "default-src 'none'" in text


def test_every_tag_is_closed_in_order(make, case_files):
    assert Page(make(cases=[case_files])).open == []


def test_sections_come_in_the_order_a_reader_asks(make):
    text = make()
    heads = [
        "Did the unlabelled scans help?",
        'id="runs"',
        'id="training"',
        'id="cases"',
        'id="pictures"',
        'id="settings"',
        'id="read"',
    ]
    places = [text.index(head) for head in heads]
    assert places == sorted(places)


@pytest.mark.parametrize(
    ("stops", "words"),
    [
        ((GOOD, POOR), "Yes: “semi” is better than “labelled”"),
        ((POOR, GOOD), "No: “semi” is worse than “labelled”"),
        ((GOOD, GOOD[2:] + GOOD[:2]), "No clear difference between “semi” and “labelled”"),
        ((GOOD,), "One run alone cannot say"),
    ],
)
def test_the_verdict_is_said_in_plain_words(make, stops, words):
    assert words in make(stops=stops)


def test_what_a_user_may_name_is_escaped(make):
    evil = "<script>alert(1)</script>$x_{$"
    text = make(title=evil, names=(evil, "b"), notes=[evil])
    assert "<script" not in text
    assert text.count("&lt;script&gt;") >= 4


def test_cases_are_sorted_worst_first_with_undefined_ones_on_top(tmp_path):
    rows = table([10, 9, 10, 9, 10, 8, 10, 2])
    rows[6] |= {"dice": math.nan, "status": "missing prediction"}
    run = RunView("a", tmp_path, rows)
    text = write_run_report(tmp_path / "page.html", title="t", runs=[run], cases=[]).read_text(encoding="utf-8")
    body = text[text.index('id="cases"') : text.index('id="pictures"')]
    assert re.findall(r'scope="row" class="text">(c\d)', body) == ["c6", "c7", "c5", "c1", "c3", "c0", "c2", "c4"]
    assert re.findall(r'class="text warn">([^<]+)<', body) == ["A: missing prediction", "A: empty prediction"]


def test_undefined_values_are_counted_in_the_table_of_runs(make):
    text = make(stops=([10, 9, 10, 9, 10, 9, 10, 2], POOR))
    assert re.search(r'class="nowrap warn">0 / 1<', text)  # Dice is 0, HD95 does not exist


def test_settings_in_which_runs_differ_are_marked(make):
    text = make()
    assert re.search(r'<tr class="differs"><th scope="row" class="text">seed<', text)
    assert re.search(r'<tr><th scope="row" class="text">net\.name<', text)


def test_curves_are_drawn_from_the_logs_and_missing_logs_are_named(make, tmp_path):
    without = make()
    assert "No readable log for semi: train.csv" in without
    logs = tmp_path / "semi" / "logs"
    logs.mkdir(parents=True)
    with (logs / "train.csv").open("w", newline="") as stream:
        csv.writer(stream).writerows(
            [["iteration", "loss", "supervised", "confident"], [10, 1, 0.5, 0.1], [20, "nan", 0.4, 0.2], [30, 0.6]]
        )
    text = make()
    assert "No readable log for labelled: train.csv" in text
    assert "Health of the pseudo-labels" in text and "Health of the pseudo-labels" not in without


def test_a_scan_that_cannot_be_read_is_named_and_the_page_is_still_written(make, case_files):
    case_files.image.write_bytes(b"no scan")
    text = make(cases=[case_files])
    assert "Could not be drawn" in text and "c1.nii.gz" in text


def test_a_case_is_drawn_as_a_png_in_the_page(make, case_files):
    text = make(cases=[case_files])
    pictures = re.findall(r'src="data:image/png;base64,([^"]+)" alt="Three planes', text)
    assert len(pictures) == 1
    assert base64.b64decode(pictures[0]).startswith(b"\x89PNG")


def test_runs_on_other_cases_are_not_compared(tmp_path):
    runs = [RunView("a", tmp_path, table(GOOD)), RunView("b", tmp_path, table(POOR)[:-1])]
    text = write_run_report(tmp_path / "page.html", title="t", runs=runs, cases=[]).read_text(encoding="utf-8")
    assert "These runs cannot be compared" in text and "c7 (class 1)" in text


def test_several_classes_get_a_line_each_and_one_for_all(tmp_path):
    rows = table(GOOD) + [{**row, "class": 2, "class_name": "lung", "dice": math.nan} for row in table(GOOD)]
    text = write_run_report(tmp_path / "p.html", title="t", runs=[RunView("a", tmp_path, rows)], cases=[]).read_text()
    body = text[text.index('id="runs"') : text.index('id="training"')]
    assert re.findall(r'<td class="text">([^<]+)<', body) == ["all classes", "heart", "lung"]


def test_drawn_are_worst_median_best_and_the_most_different_case(tmp_path):
    runs = [
        RunView("a", tmp_path, table([7, 3, 5, 9, 8, 6, 10, 4])),
        RunView("b", tmp_path, table([7, 3, 5, 3, 8, 6, 10, 4])),
    ]
    views = [CaseView(case, tmp_path, tmp_path, {}) for case in CASES]
    chosen = [(view.case, reason.split()[0]) for reason, view in choose_cases(runs, views)]
    assert chosen == [("c1", "Worst"), ("c5", "Median"), ("c3", "Largest"), ("c6", "Best")]
    assert len(choose_cases(runs, views, most=2)) == 2


@pytest.mark.parametrize("names", [[], ["a", "a"]])
def test_runs_need_different_names(tmp_path, names):
    runs = [RunView(name, tmp_path, table(GOOD)) for name in names]
    with pytest.raises(InputError, match="different names"):
        write_run_report(tmp_path / "page.html", title="t", runs=runs, cases=[])
