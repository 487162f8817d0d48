from __future__ import annotations

import base64
import csv
import hashlib
import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from nibabel import Nifti1Image
from PIL import Image

from semi_med.errors import InputError
from semi_med.inference.io import write_label
from semi_med.metrics import case_metrics, compare_methods
from semi_med.report import ComparisonView, RunResult, verdict_sentences, write_comparison
from semi_med.report.comparison_curves import health_flags, read_logs, without_log
from semi_med.report.comparison_data import analyse
from semi_med.report.comparison_pictures import choose_pictures, draw_pictures, load_slices
from semi_med.report.comparison_settings import method_settings, run_settings, shared_settings
from semi_med.report.comparison_style import BASELINE_COLOUR, looks
from semi_med.report.comparison_tables import case_tables, class_tables, method_rows
from semi_med.report.comparison_words import brief_names, judge_method, points

AFFINE = np.diag([-1.0, -1.0, 2.0, 1.0])
CASES = [f"case{number}" for number in range(8)]
NAMES = {"supervised": "supervised", "cotrain": "co-training", "cps": "CPS"}
EVIL = "<script>alert(1)</script>$x_{$"
# dice in points by case; the order is not the same for all methods
FLOOR = [80, 78, 84, 60, 74, 82, 79, 81]
GAIN = [4, 2, 3, 8, 5, 0.2, -2, 4]


def rows(points_, **others):
    return [
        {"case": case} | measured("ok", dice=value / 100) | others for case, value in zip(CASES, points_, strict=True)
    ]


def measured(status, **cells):
    names = ("dice", "jaccard", "hd95_mm", "asd_mm", "assd_mm", "hd95_voxel", "asd_voxel", "assd_voxel")
    row = {"class": 1, "class_name": "heart", **dict.fromkeys(names, 1.0), "prediction_ml": 2.0, "label_ml": 2.5}
    return row | {"status": status} | cells


def result(method, labeled, seed, table, folder, **others):
    name = f"{method}_{labeled or 'all'}_seed{seed}"
    settings = {"method": method, "seed": seed, "labeled": labeled, "iterations": 100, "net": {"filters": 8}}
    given = {"predictions": {}, "minutes": 2.0 * seed, "settings": settings} | others
    return RunResult(name, method, labeled, seed, folder / name, table, **given)


def gained(by, seed):
    """Dice of a method that gains `by` times GAIN; every seed shifts it by a quarter of a point."""
    return [floor + by * gain + 0.25 * (seed - 2) for floor, gain in zip(FLOOR, GAIN, strict=True)]


@pytest.fixture
def view(tmp_path):
    """Three methods with 4 labels and the ceiling, 3 seeds: co-training gains 3.025 points, CPS nothing."""
    runs = []
    for seed in (1, 2, 3):
        runs.append(result("supervised", 4, seed, rows(FLOOR), tmp_path))
        runs.append(result("cotrain", 4, seed, rows(gained(1, seed)), tmp_path))
        runs.append(result("cps", 4, seed, rows(FLOOR[::1]), tmp_path))
        runs.append(result("supervised", None, seed, rows([value + 6.05 for value in FLOOR]), tmp_path))
    return ComparisonView("Hearts", runs, NAMES, {case: case for case in CASES}, {}, {}, summary={"task": "hearts"})


@pytest.fixture
def write(tmp_path):
    def page(view):
        written = write_comparison(tmp_path / "out", view)
        assert [path.name for path in written] == ["comparison.html", "comparison.csv", "summary.csv"]
        return written[0].read_text(encoding="utf-8")

    return page


def block(stop):
    array = np.zeros((12, 14, 8), np.uint8)
    array[2:stop, 3:9, 2:6] = 1
    return array


@pytest.fixture
def scans(tmp_path):
    """Three methods with one label, two seeds and three cases that have files; each stop is the end of a block."""
    stops = {
        "supervised": [[8, 9, 10], [8, 9, 10]],
        "cotrain": [[9, 9, 10], [10, 9, 9]],
        "cps": [[8, 9, 10], [8, 9, 9]],
    }
    images, labels, runs = {}, {}, []
    for case in CASES[:3]:
        images[case], labels[case] = tmp_path / f"{case}.nii.gz", tmp_path / f"{case}_label.nii.gz"
        values = np.random.default_rng(0).normal(100, 10, (12, 14, 8)).astype(np.float32)
        Nifti1Image(values, AFFINE).to_filename(images[case])
        write_label(labels[case], block(10), affine=AFFINE)
    for method, by_seed in stops.items():
        for seed, found in enumerate(by_seed, start=1):
            table, files = [], {}
            for case, stop in zip(CASES, found, strict=False):
                files[case] = tmp_path / f"{method}_{seed}_{case}.nii.gz"
                write_label(files[case], block(stop), affine=AFFINE)
                table += [
                    {"case": case, **case_metrics(block(stop), block(10), classes={1: "heart"}, spacing=(1, 1, 2))[0]}
                ]
            runs.append(result(method, 1, seed, table, tmp_path, predictions=files))
    return ComparisonView("Scans", runs, NAMES, {case: case for case in CASES}, images, labels, unit="scan")


@pytest.fixture
def pictures(tmp_path):
    """Two methods with one label, one seed and two colour pictures of 40 x 30 pixels; predictions of both formats."""
    images, labels, runs = {}, {}, []
    values = np.random.default_rng(0).integers(0, 256, (30, 40, 3), np.uint8)
    values[:5, :5] = (255, 0, 0)  # red at the left top
    disc = np.zeros((30, 40), np.uint8)
    disc[8:20, 10:25] = 1
    for case in CASES[:2]:
        images[case], labels[case] = tmp_path / f"{case}.png", tmp_path / f"{case}_label.png"
        Image.fromarray(values).save(images[case])
        Image.fromarray(disc).save(labels[case])
    for method, stop in (("supervised", 23), ("cotrain", 24)):
        table, files = [], {}
        found = disc * (np.arange(40) < stop)
        for case in CASES[:2]:
            files[case] = tmp_path / f"{method}_{case}_seg.{'png' if method == 'cotrain' else 'nii.gz'}"
            if method == "cotrain":
                Image.fromarray(found.astype(np.uint8)).save(files[case])
            else:
                write_label(files[case], found.T[:, :, None].astype(np.uint8), affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
            measured_ = case_metrics(found.T, disc.T, classes={1: "lesion"}, spacing=(1, 1))[0]
            lost = dict.fromkeys(("hd95_mm", "asd_mm", "assd_mm"), math.nan)
            table += [{"case": case, **measured_, **lost}]
        runs.append(result(method, 1, 1, table, tmp_path, predictions=files))
    subjects = {case: case for case in CASES}
    return ComparisonView("Skin", runs, NAMES, subjects, images, labels, unit="picture", thing="picture")


def log(folder, file, **columns):
    (folder / "logs").mkdir(parents=True, exist_ok=True)
    with (folder / "logs" / file).open("w", newline="") as stream:
        csv.writer(stream).writerows([columns, *zip(*columns.values(), strict=True)])


class Page(HTMLParser):
    """Every attribute that can fetch, and the stack of open tags."""

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.images = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        self.images += [dict(attrs)] if tag == "img" else []
        if tag not in ("meta", "img", "br", "line", "circle", "link"):
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in ("line", "circle"):
            assert self.open.pop() == tag

    handle_startendtag = handle_starttag


def text_of(html):
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", html))


# -- the page


def test_the_page_is_whole_and_asks_for_nothing_outside_itself(scans, write):
    for run in scans.runs:
        curve = {"iteration": range(10, 200, 10), "loss": [1.0] * 19, "foreground": [0.1] * 19}
        log(run.folder, "train.csv", **curve)
        log(run.folder, "validation.csv", iteration=[10, 20], mean_dice=[0.5, 0.6])
    text = write(scans)
    page = Page(text)
    assert page.open == []
    assert len(page.images) == 7  # accuracy, differences, validation, loss, health and two cases
    assert all(image["alt"] for image in page.images)
    assert all(link.startswith(("data:image/png;base64,", "data:image/svg+xml;base64,", "#")) for link in page.links)
    assert not re.search(r"https?://|url\(|@import", text)
    pictures = [base64.b64decode(image["src"].split(",")[1]) for image in page.images]
    assert all(picture.startswith((b"\x89PNG", b"<?xml")) for picture in pictures)
    # names of namespaces are no loads; what an SVG could load stands in href
    assert not any(re.search(rb'href="(?!#)', picture) for picture in pictures if picture.startswith(b"<?xml"))


def test_only_the_one_script_of_the_page_may_run(view, write):
    text = write(view)
    (script,) = re.findall(r"<script>(.*?)</script>", text, re.S)
    allowed = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    assert f"script-src 'sha256-{allowed}'" in text
    assert "default-src 'none'" in text


def test_the_page_says_the_numbers_worked_out_by_hand(view, write):
    text = text_of(write(view))
    assert "Perhaps: co-training is ahead of supervised, but as the best of several it may be by chance" in text
    # mean of GAIN is 24.2 / 8 = 3.025, half of the 6.05 points to all labels
    assert re.search(r"co-training is better than supervised by 3\.0 Dice, 95 % interval \d", text)
    assert re.search(r"at 4 labelled subjects; it closes 50 % of the gap to training on all labels", text)
    assert "Mean Dice 80.3 against 77.2" in text
    assert "Of 8 test cases better in 6, equal in 1, worse in 1" in text
    assert "better in 3 of 3 seeds (seed 1: +2.8, seed 2: +3.0, seed 3: +3.3)" in text
    assert re.search(r"CPS 77\.2 [\d. to]+ 0\.0 0\.0 to 0\.0 0 / 8 / 0 0 of 3", text)


def test_sections_come_in_the_order_a_reader_asks(view, write):
    text = write(view)
    heads = ["Did the unlabelled scans help?", "All methods", *(f'id="{name}"' for name in SECTIONS)]
    places = [text.index(head) for head in heads]
    assert places == sorted(places)


SECTIONS = ("labels", "differences", "training", "classes", "cases", "health", "pictures", "settings", "read")


def test_what_a_user_may_name_is_escaped(view, write):
    names = {"supervised": "supervised", "cotrain": EVIL, "cps": "CPS"}
    runs = [replace(run, settings={**run.settings, "note": EVIL}) for run in view.runs]
    text = write(
        replace(view, title=EVIL, method_names=names, runs=runs, notes=[EVIL], missing=[EVIL], summary={EVIL: EVIL})
    )
    assert len(re.findall("<script", text)) == 1
    assert text.count("&lt;script&gt;") > 8


def test_what_is_missing_is_said(view, write):
    text = text_of(
        write(
            replace(
                view,
                runs=[run for run in view.runs if run.method != "cps" and run.name != "cotrain_4_seed3"],
                missing=["cps_4_seed1", "cotrain_4_seed3"],
                notes=["The scanner changed."],
            )
        )
    )
    assert "2 runs are not finished, and not on this page: cps_4_seed1, cotrain_4_seed3." in text
    assert "The scanner changed." in text
    assert re.search(r"CPS [– ]+ no finished run", text)
    assert "co-training, 4 labelled subjects: compared without seed 3" in text
    assert "No loss curve" in text and "No validation curve" in text


def test_runs_that_cannot_be_compared_are_named_and_the_page_is_still_written(view, write):
    runs = [replace(run, table=run.table[:-1]) if run.method == "cps" else run for run in view.runs]
    text = text_of(write(replace(view, runs=runs)))
    assert "CPS, 4 labelled subjects: wanted runs measured on the same cases" in text
    assert "Yes: co-training is better" in text


def test_without_the_baseline_nothing_is_claimed(view, write):
    text = text_of(write(replace(view, runs=[run for run in view.runs if run.method == "cotrain"])))
    assert "Nothing to compare yet" in text
    assert "no finished run of supervised" in text


# -- tables


def test_methods_stand_in_the_order_given_with_all_labels_last(view):
    lines = method_rows(analyse(view))
    assert [(line["labels"], line["name"]) for line in lines] == [
        ("4 labelled subjects", "supervised"),
        ("4 labelled subjects", "co-training"),
        ("4 labelled subjects", "CPS"),
        ("all labels", "supervised"),
    ]
    assert [line["mean"] for line in lines] == ["77.2", "80.3", "77.2", "83.3"]
    assert lines[1]["minutes"] == "4.0"


def test_cases_are_worst_first_with_undefined_ones_on_top(view):
    run = view.runs[1]
    table = [
        {**row, "dice": math.nan, "status": "missing prediction"} if row["case"] == "case2" else row
        for row in run.table
    ]
    (found,) = case_tables(analyse(replace(view, runs=[replace(run, table=table), *view.runs[:1], *view.runs[2:3]])))
    assert [row["case"] for row in found["rows"]][:3] == ["case2", "case3", "case4"]
    top = found["rows"][0]
    assert [cell["text"] for cell in top["cells"]] == ["84.0", "–", "84.0"]
    assert top["remark"] == "co-training: heart, missing prediction (seed 1)"
    assert top["cells"][1]["words"] == "1 undefined value left out"


def test_the_shade_of_a_cell_says_how_much_better_or_worse_it_is(view):
    (found,) = case_tables(analyse(view))
    shades = {row["case"]: row["cells"][1]["shade"] for row in found["rows"]}
    assert shades == {
        **{"case0": "up2", "case1": "up2", "case2": "up2", "case3": "up3", "case4": "up3"},
        **{"case5": "", "case6": "down2", "case7": "up2"},
    }
    assert {row["cells"][0]["shade"] for row in found["rows"]} == {""}


def test_undefined_distances_are_counted_by_class_and_never_zero(view):
    runs = [replace(view.runs[0], table=rows(FLOOR)[:6] + rows(FLOOR, hd95_mm=math.nan, status="empty prediction")[6:])]
    (found,) = class_tables(analyse(replace(view, runs=runs)))
    assert found["rows"][0]["cells"][0] | {"mean": 0} == {
        "dice": "77.2",
        "hd95": "1.0",
        "undefined": "2 HD95 of 8 undefined",
        "mean": 0,
    }


def test_the_hardest_class_comes_first(view):
    table = rows(FLOOR) + rows([value - 10 for value in FLOOR], **{"class": 2, "class_name": "lung"})
    (found,) = class_tables(analyse(replace(view, runs=[replace(view.runs[0], table=table)])))
    assert [row["class_name"] for row in found["rows"]] == ["lung", "heart"]


def test_settings_are_told_once_if_shared_and_by_method_if_not(view):
    runs = [
        replace(run, settings={**run.settings, "crop": run.method, "lists": run.name, "rate": 0.01 * run.seed})
        for run in view.runs
    ]
    found = analyse(replace(view, runs=runs))
    assert shared_settings(found) == [("task", "hearts"), ("iterations", "100"), ("net.filters", "8")]
    assert method_settings(found) == [{"name": "rate", "cells": ["seed 1: 0.01; seed 2: 0.02; seed 3: 0.03"] * 3}]
    assert run_settings(found)["cps_4_seed2"] == "lists: cps_4_seed2"


# -- CSV


def test_every_value_comes_back_from_the_csv(view, write, tmp_path):
    write(view)
    with (tmp_path / "out" / "comparison.csv").open(newline="") as stream:
        found = list(csv.DictReader(stream))
    assert len(found) == 12 * 8
    values = {(row["method"], row["labeled"], int(row["seed"]), row["case"]): float(row["dice"]) for row in found}
    for run in view.runs:
        for row in run.table:
            key = (run.method, str(run.labeled or "all"), run.seed, row["case"])
            assert values[key] == pytest.approx(row["dice"], abs=1e-9)


def test_the_summary_has_the_numbers_of_the_comparison(view, write, tmp_path):
    write(view)
    with (tmp_path / "out" / "summary.csv").open(newline="") as stream:
        found = {(row["method"], row["labeled"]): row for row in csv.DictReader(stream)}
    tables = {m: {run.seed: run.table for run in view.runs if (run.method, run.labeled) == (m, 4)} for m in NAMES}
    wanted = compare_methods(tables["cotrain"], tables["supervised"])
    line = found["cotrain", "4"]
    names = ("mean", "low", "high", "cases_low", "cases_high")
    assert [float(line[f"difference_{name}"]) for name in names] == pytest.approx([getattr(wanted, n) for n in names])
    assert (line["wins"], line["ties"], line["losses"], line["verdict"]) == ("6", "1", "1", "better")
    assert float(line["share_of_gap"]) == pytest.approx(0.5)
    assert line["difference_by_seed"] == "1:0.02775 2:0.03025 3:0.03275"
    assert found["supervised", "4"]["difference_mean"] == "nan"
    assert float(found["supervised", "all"]["mean_dice"]) == pytest.approx(0.833)


# -- words


def judged(difference, *, seeds=3, subjects=8, spread=0.0):
    """Verdict on a method whose difference is the same everywhere up to `spread`, which turns its sign by seed."""
    base = {seed: rows(FLOOR)[:subjects] for seed in range(1, seeds + 1)}
    noise = np.linspace(-0.002, 0.002, subjects)
    method = {
        seed: [
            {**row, "dice": row["dice"] + difference + spread * (-1) ** seed + noise[place]}
            for place, row in enumerate(table)
        ]
        for seed, table in base.items()
    }
    found = compare_methods(method, base)
    return judge_method(found, name="co-training", baseline="supervised", labels="4 labelled scans")


@pytest.mark.parametrize(
    ("given", "word"),
    [
        ({"difference": 0.03}, "better"),
        ({"difference": -0.03}, "worse"),
        ({"difference": 0.0, "spread": 0.02}, "no clear difference"),
        ({"difference": 0.03, "spread": 0.02}, "better in these runs"),
        ({"difference": -0.03, "spread": 0.02}, "worse in these runs"),
        ({"difference": 0.03, "seeds": 2}, "better in these runs"),
        ({"difference": 0.03, "seeds": 1}, "better in these runs"),
        ({"difference": 0.03, "subjects": 5}, "no clear difference"),
        ({"difference": 0.03, "subjects": 1}, "no clear difference"),
    ],
)
def test_the_word_claims_no_more_than_seeds_and_subjects_carry(given, word):
    assert judged(**given).word == word


def test_identical_runs_are_no_clear_difference():
    table = {seed: rows(FLOOR) for seed in (1, 2, 3)}
    verdict = judge_method(compare_methods(table, table), name="a", baseline="b", labels="4 labelled scans")
    assert (
        verdict.sentence
        == "no clear difference between a and b at 4 labelled scans: 0.0 Dice, 95 % interval 0.0 to 0.0"
    )


def test_a_worse_method_is_worse_by_a_positive_number():
    sentence = judged(-0.03).sentence
    assert re.match(
        r"co-training is worse than supervised by 3\.0 Dice, 95 % interval 2\.\d to 3\.\d, at 4 lab", sentence
    )


def test_one_seed_and_few_subjects_are_cautioned_against():
    verdict = judged(0.03, seeds=1)
    assert "one run cannot speak for others" in verdict.sentence
    assert verdict.cautions[0].startswith("One seed: nothing is said about other labelled subjects")
    assert any("Only 8 test subjects" in caution for caution in verdict.cautions)


def test_two_seeds_that_agree_are_still_too_few_for_others():
    assert re.search(
        r"in these 2 runs by 3\.0 Dice.*; 2 runs are too few to speak for others$", judged(0.03, seeds=2).sentence
    )


def test_three_seeds_that_do_not_agree_do_not_show_it_for_others():
    sentence = judged(0.03, spread=0.02).sentence
    assert re.search(r"in these 3 runs by .* Dice .*, but 3 runs cannot show it for others: 95 % interval −", sentence)


def test_a_small_difference_is_called_small():
    verdict = judged(0.006)
    assert verdict.word == "better"
    assert any("Less than one Dice point" in caution for caution in verdict.cautions)


def test_the_best_of_several_methods_gets_an_interval_that_takes_the_choice_into_account(view):
    verdict = analyse(view).entries["cotrain", 4].verdict
    (caution,) = [caution for caution in verdict.cautions if "Bonferroni" in caution]
    assert caution.startswith("Picked as the best of 2 methods")
    assert not any("Bonferroni" in caution for caution in analyse(view).entries["cps", 4].verdict.cautions)


def test_the_headline_says_yes_only_if_the_choice_of_the_best_leaves_it_standing(view, write):
    entries = analyse(view).entries
    verdict = entries["cotrain", 4].verdict
    (caution,) = [caution for caution in verdict.cautions if "Bonferroni" in caution]
    assert (verdict.word, verdict.holds) == ("better", False)
    assert caution.endswith("it includes zero.")
    alone = replace(view, runs=[run for run in view.runs if run.method != "cps"])
    assert "Yes: co-training is better than supervised" in text_of(write(alone))


def test_sentences_come_best_first_for_each_number_of_labels(view):
    first, second = verdict_sentences(view)
    assert first.startswith("co-training is better than supervised by 3.0 Dice, 95 % interval ")
    assert first.endswith("at 4 labelled subjects; it closes 50 % of the gap to training on all labels")
    assert second.startswith("no clear difference between CPS and supervised at 4 labelled subjects")


@pytest.mark.parametrize(("value", "text"), [(0.0312, "+3.1"), (-0.0312, "−3.1"), (-0.0001, "0.0"), (math.nan, "–")])
def test_points_are_written_with_a_true_minus_and_no_negative_zero(value, text):
    assert points(value, sign=True) == text


# -- curves


def test_a_collapse_of_the_foreground_is_flagged_and_a_healthy_curve_is_not(view):
    steps = np.arange(1, 101)
    for run in view.runs:
        sick = run.name == "cps_4_seed2"
        foreground = 0.05 * np.exp(-steps / 15) if sick else np.full(100, 0.05)
        log(
            run.folder, "train.csv", iteration=steps, loss=1 / steps, foreground=foreground, agreement=np.full(100, 0.9)
        )
    found = analyse(view)
    (flag,) = health_flags(found, read_logs(found, "train.csv"))
    assert flag.startswith("CPS, 4 labelled subjects, seed 2: the foreground share of the pseudo-labels fell to 0.0")


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("confident", [0.5] * 50 + [0.001] * 50, "only 0.1 % of the voxels"),
        ("agreement", [0.9] * 50 + [0.999] * 50, "become one"),
        ("pseudo_label_dice", [0.8] * 50 + [0.6] * 50, "from 0.80 to 0.60 Dice"),
        ("foreground", [0.1] * 50 + [0.0] * 50, "find nothing"),
    ],
)
def test_each_unhealthy_curve_is_said_in_words(view, column, values, words):
    log(view.runs[1].folder, "train.csv", iteration=range(1, 101), **{column: values})
    found = analyse(view)
    (flag,) = health_flags(found, read_logs(found, "train.csv"))
    assert words in flag


def test_runs_without_a_log_are_named(view):
    log(view.runs[0].folder, "train.csv", iteration=[1, 2], loss=[1, 2])
    found = analyse(view)
    assert without_log(found, read_logs(found, "train.csv")) == [run.name for run in view.runs[1:]]


# -- pictures


def test_drawn_are_the_case_where_methods_differ_most_and_the_one_where_the_best_does_worst(scans):
    most_apart, worst = choose_pictures(analyse(scans))
    # case0: supervised and CPS stop at 8, co-training at 9 and 10; in case2 co-training loses in seed 2
    assert (most_apart.case, most_apart.seed, most_apart.reason) == ("case0", 2, "methods differ most")
    assert (worst.case, worst.seed, worst.reason) == ("case2", 2, "co-training loses most against supervised")


def test_the_slice_is_where_methods_disagree(scans):
    found = analyse(scans)
    slices = load_slices(found, choose_pictures(found)[0])
    cotrain, supervised = slices.predictions["cotrain"], slices.predictions["supervised"]
    apart = (cotrain != supervised).sum() * np.prod(slices.spacing)
    assert apart == 6 * 4 * 2  # i 8 and 9 differ; one of them cut through j (6 voxels of 1 mm) and k (4 voxels of 2 mm)
    assert slices.plane.name == "Sagittal"


def test_a_scan_that_cannot_be_read_is_named_instead(scans):
    scans.images["case0"].write_bytes(b"no scan")
    first, second = draw_pictures(analyse(scans))
    assert first["picture"] == "" and "case0.nii.gz" in first["problem"]
    assert "/" not in first["problem"]  # no folder of this machine on the page
    assert base64.b64decode(second["picture"].split(",")[1]).startswith(b"\x89PNG")


def test_a_case_without_files_is_named_instead(view):
    (drawn, _) = draw_pictures(analyse(view))
    assert "no file of the image and the label is given" in drawn["problem"]


# -- pictures instead of scans


def test_a_comparison_on_pictures_speaks_of_pictures_and_pixels(pictures, write):
    text = text_of(write(pictures))
    assert "Did the unlabelled pictures help?" in text
    assert "1 labelled picture" in text
    # 2 of 15 columns are missing, and for co-training 1; the nearest line of pixels is as far away
    assert "HD95 2.0 pixels" in text and "HD95 1.0 pixels" in text
    assert not re.search(r"\b(scans?|mm|millimetres?|voxels?|radiologist\w*|undefined HD95)\b", text)
    assert "Could not be drawn" not in text


def test_a_picture_is_drawn_upright_in_its_colours_and_without_sides_of_a_patient(pictures):
    slices = load_slices(analyse(pictures), choose_pictures(analyse(pictures))[0])
    assert (slices.plane.name, slices.plane.left, slices.plane.top) == ("Picture", "", "")
    assert slices.image.shape == (30, 40, 3)
    # rows run upwards, columns against the axis, which is drawn to the left: the first corner is the last one here
    assert slices.image[-1, -1].tolist() == [255, 0, 0]
    assert set(slices.predictions) == {"supervised", "cotrain"}
    drawn = draw_pictures(analyse(pictures))
    assert [line["slice"] for line in drawn] == ["Picture"] and drawn[0]["picture"]


def test_distances_without_millimetres_are_given_in_voxels(view):
    runs = [replace(run, table=[{**row, "hd95_mm": math.nan} for row in run.table]) for run in view.runs]
    found = analyse(replace(view, runs=runs))
    assert found.distance == ("hd95_voxel", "voxels")
    assert class_tables(found)[0]["rows"][0]["cells"][0]["hd95"] == "1.0"
    assert analyse(view).distance == ("hd95_mm", "mm")


# -- names


def test_what_stands_in_brackets_is_left_out_where_there_is_little_room():
    assert brief_names({"a": "CPS (cross pseudo supervision)", "b": "supervised"}) == {"a": "CPS", "b": "supervised"}


def test_names_that_differ_in_brackets_only_stay_whole():
    names = {"a": "MT (slow)", "b": "MT (quick)", "c": "(odd)"}
    assert brief_names(names) == names


def test_the_table_of_methods_says_the_whole_name(view, write):
    names = {**NAMES, "cps": "CPS (cross pseudo supervision)"}
    text = text_of(write(replace(view, method_names=names)))
    assert re.search(r"◆|▲ CPS cross pseudo supervision 77\.2", text)


def test_remarks_on_cases_stand_below_their_table(view, write):
    table = [{**row, "status": "empty prediction"} if row["case"] == "case2" else row for row in view.runs[1].table]
    html = write(replace(view, runs=[replace(view.runs[1], table=table), *view.runs[:1]]))
    assert html.index('<ul class="remarks"><li>case2: co-training: heart, empty') > html.index("case7")


# -- what is given


def test_methods_keep_their_colour_and_shape(view):
    styles = looks(NAMES, baseline="supervised")
    assert styles["supervised"].colour == BASELINE_COLOUR
    assert len({style.colour for style in styles.values()}) == len({style.marker for style in styles.values()}) == 3


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        (lambda runs: [], "finished runs to compare, got none"),
        (lambda runs: [*runs, runs[0]], "has the method, the number of labels and the seed of supervised_4_seed1"),
        (lambda runs: [replace(runs[0], table=[])], "has no row of metrics"),
    ],
)
def test_what_cannot_be_a_comparison_is_refused(view, change, problem):
    with pytest.raises(InputError, match=problem):
        write_comparison(view.runs[0].folder, replace(view, runs=change(view.runs)))


def test_a_view_names_no_file_outside_the_ones_given(view, write, tmp_path):
    assert str(tmp_path) not in write(view)
    assert json.dumps(str(tmp_path)) not in (tmp_path / "out" / "summary.csv").read_text()
