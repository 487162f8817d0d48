"""The report of a run and of a folder of predictions: what it is made from, and what stands on the page."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from PIL import Image
from review_samples import AFFINE, NAMES, SHIFTS, label_of, write_folders, write_map

from semi_med.errors import InputError, ProblemsError
from semi_med.inference.io import write_label
from semi_med.report.review import check_page_name, write_review
from semi_med.report.review_data import collect_review
from semi_med.report.review_figures import ranking_words, volume_figure
from semi_med.report.review_labels import Beside
from semi_med.report.review_tables import case_rows, ranked, structure_table
from tests.corpus.dicom_corpus import plan_series


@pytest.fixture
def folders(tmp_path):
    return write_folders(tmp_path)


@pytest.fixture
def page(folders, tmp_path):
    """Write the page of what is given and return its text."""

    def write(*places, labels=True, images=True, **others):
        beside = Beside(images=[folders.images] if images else (), labels=folders.labels if labels else None, **others)
        view = collect_review(places or [folders.run, folders.predictions], beside)
        return write_review(tmp_path / "report.html", view).read_text(encoding="utf-8")

    return write


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The text of a page that has everything."""
    root = tmp_path_factory.mktemp("review_of_all")
    folders = write_folders(root)
    beside = Beside(images=[folders.images], labels=folders.labels)
    view = collect_review([folders.run, folders.predictions], beside)
    return write_review(root / "report.html", view).read_text(encoding="utf-8")


class Tags(HTMLParser):
    """What a page links to, and the stack of open tags."""

    empty = ("meta", "img", "br", "input", "image", "link")

    def __init__(self, text):
        super().__init__()
        self.links, self.open, self.attributes = [], [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.links += [value for name, value in attrs if name in ("src", "href", "action", "data", "srcset")]
        self.attributes += attrs
        if tag not in self.empty:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.empty:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attrs):
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)


def test_the_page_asks_for_nothing_outside_itself(whole):
    assert all(link.startswith(("data:image/", "#")) for link in Tags(whole).links)
    assert not re.search(r"https?://|url\(|@import|fetch\(|XMLHttpRequest", whole)
    assert "default-src 'none'" in whole


def test_every_tag_is_closed_in_order(whole):
    assert Tags(whole).open == []


def test_names_and_warnings_are_escaped(whole):
    assert "lung &amp; &lt;b&gt;liver&lt;/b&gt;" in whole
    assert "<b>liver" not in whole
    assert "<script>alert" not in whole
    assert not [name for name, _ in Tags(whole).attributes if name.startswith("on")]


def test_no_place_on_the_machine_is_on_the_page(whole):
    assert "Jane_Doe" not in whole
    assert "review_of_all" not in whole
    assert "settings.seed" in whole


def test_failed_cases_come_first_then_the_lowest_dice(folders):
    view = collect_review([folders.predictions], Beside(labels=folders.labels))
    assert [case.name for case in ranked(view)] == ["broken", "poor", "fair", "good"]


def test_without_labels_the_least_sure_case_comes_first_and_without_confidence_the_one_with_warnings(folders):
    view = collect_review([folders.predictions])
    assert [case.name for case in ranked(view)] == ["broken", "poor", "fair", "good"]
    record = json.loads((folders.predictions / "run.json").read_text())
    for row in record["cases"]:
        row["confidence"] = None
    (folders.predictions / "run.json").write_text(json.dumps(record))
    assert [case.name for case in ranked(collect_review([folders.predictions]))] == ["broken", "fair", "good", "poor"]


def test_dice_is_measured_and_structures_have_the_names_of_the_record(folders):
    view = collect_review([folders.predictions], Beside(labels=folders.labels))
    assert view.classes == {1: NAMES[0], 2: NAMES[1]}
    lines = {line["name"]: line for line in case_rows(view, view.cases)}
    assert lines["good"]["dice"]["text"] == "1.000"
    # of four voxels along the axis three are shared; of three, two
    assert lines["fair"]["dice"]["text"] == f"{(3 / 4 + 2 / 3) / 2:.3f}"
    assert lines["fair"]["worst"] == f"{NAMES[1]} 0.667"
    assert lines["broken"]["dice"]["text"] == "–"


def test_other_numbers_than_1_2_are_taken_in_order(folders):
    for place, ending in ((folders.labels, ""), (folders.predictions, "_seg")):
        for case in ("good", "fair", "poor"):
            shift = {"good": 0, "fair": 1, "poor": 3}[case] if ending else 0
            write_label(place / f"{case}{ending}.nii.gz", label_of(shift) * 100, affine=AFFINE)
    view = collect_review([folders.predictions], Beside(labels=folders.labels))
    assert view.classes == {100: NAMES[0], 200: NAMES[1]}


def test_an_earlier_table_is_taken_instead_of_measuring(folders, tmp_path):
    from semi_med.metrics.evaluate import evaluate

    evaluate(folders.predictions, folders.labels, output=tmp_path / "table.csv")
    for path in folders.labels.iterdir():
        path.unlink()
    view = collect_review([folders.predictions], Beside(table=tmp_path / "table.csv"))
    assert {row["case"]: row["dice"] for row in view.table if row["class"] == 1}["good"] == 1


def test_a_table_made_without_names_gets_those_of_the_record(folders, tmp_path):
    from semi_med.metrics.evaluate import evaluate

    evaluate(folders.predictions, folders.labels, output=tmp_path / "table.csv")
    assert "class 1" in (tmp_path / "table.csv").read_text()
    assert collect_review([folders.predictions], Beside(table=tmp_path / "table.csv")).classes == {
        1: NAMES[0],
        2: NAMES[1],
    }
    evaluate(folders.predictions, folders.labels, output=tmp_path / "table.csv", classes={1: "ventricle", 2: "atrium"})
    found = collect_review([folders.predictions], Beside(table=tmp_path / "table.csv"))
    assert found.classes == {1: "ventricle", 2: "atrium"}


def test_pictures_are_measured_in_pixels_and_their_usual_warning_is_left_out(tmp_path):
    random = np.random.default_rng(0)
    for place in ("masks", "scans", "labels"):
        (tmp_path / place).mkdir()
    Image.fromarray(random.integers(0, 255, (20, 30, 3), np.uint8)).save(tmp_path / "scans" / "a.png")
    label = np.zeros((30, 20, 1), np.uint8)
    label[4:12, 5:9] = 1
    affine = np.diag([-1.0, -1.0, 1.0, 1.0])
    write_label(tmp_path / "labels" / "a.png", label, affine=affine)
    write_label(tmp_path / "masks" / "a_seg.png", np.roll(label, 2, axis=0), affine=affine)
    row = {"case": "a", "image": "a.png", "status": "done", "output": "a_seg.png", "voxels": {"vessel": 32}}
    row |= {"warnings": ["PICTURE: no place in space; a pixel counts as 1 mm", "ALPHA: dropped"]}
    (tmp_path / "masks" / "run.json").write_text(json.dumps({"cases": [row]}))
    (tmp_path / "masks" / "volumes.csv").write_text("case,class,millilitres,voxels\na,vessel,nan,32\n")
    view = collect_review([tmp_path / "masks"], Beside(images=[tmp_path / "scans"], labels=tmp_path / "labels"))
    assert view.cases[0].warnings == ("ALPHA: dropped",)
    assert structure_table(view.cases[0], view.table)["heads"] == ["Pixels", "Dice", "HD95"]
    text = write_review(tmp_path / "report.html", view).read_text()
    assert "HD95, pixels" in text
    assert "voxels" not in text.split('id="read"')[0]
    assert text.count('<svg class="cut') == 1


def test_a_table_of_other_cases_is_refused(folders, tmp_path):
    from semi_med.metrics.evaluate import evaluate

    evaluate(folders.predictions, folders.labels, output=tmp_path / "table.csv")
    lines = (tmp_path / "table.csv").read_text().splitlines()
    (tmp_path / "table.csv").write_text("\n".join([lines[0], *(f"x{line}" for line in lines[1:])]) + "\n")
    with pytest.raises(InputError, match="the table holds none of the 4 predicted cases"):
        collect_review([folders.predictions], Beside(table=tmp_path / "table.csv"))


def test_masks_without_a_record_are_reported_and_it_is_said_so(folders):
    (folders.predictions / "run.json").unlink()
    (folders.predictions / "volumes.csv").unlink()
    view = collect_review([folders.predictions], Beside(labels=folders.labels, images=[folders.images]))
    assert [case.name for case in view.cases] == ["fair", "good", "poor"]
    assert "no record of the predictions" in view.notes[0]
    assert all(case.image is not None for case in view.cases)


def test_labels_without_prediction_are_counted(folders):
    write_label(folders.labels / "another.nii.gz", label_of(), affine=AFFINE)
    view = collect_review([folders.predictions], Beside(labels=folders.labels))
    assert "1 labels have no prediction here and are left out." in view.notes


def test_a_pair_that_cannot_be_measured_is_named_and_the_others_are_measured(folders):
    write_label(folders.labels / "fair.nii.gz", label_of()[:5], affine=AFFINE)
    view = collect_review([folders.predictions], Beside(labels=folders.labels))
    assert {row["case"] for row in view.table} == {"good", "poor"}
    assert any(note.startswith("Not measured: wanted one shape") for note in view.notes)
    for case in ("good", "poor"):
        write_label(folders.labels / f"{case}.nii.gz", label_of()[:5], affine=AFFINE)
    with pytest.raises(ProblemsError):
        collect_review([folders.predictions], Beside(labels=folders.labels))


def test_labels_of_other_cases_are_refused(folders):
    for path in folders.labels.iterdir():
        path.rename(path.with_name(f"x{path.name}"))
    with pytest.raises(InputError, match="none of the 3 labels belongs to one of the 4 predictions"):
        collect_review([folders.predictions], Beside(labels=folders.labels))


def test_scans_of_other_cases_are_refused(folders, tmp_path):
    (tmp_path / "others").mkdir()
    (folders.images / "good.nii.gz").rename(tmp_path / "others" / "another.nii.gz")
    with pytest.raises(InputError, match="none of the 1 scans belongs to one of the 4 predictions"):
        collect_review([folders.predictions], Beside(images=[tmp_path / "others"]))


def test_a_scan_is_found_by_its_file_where_the_case_is_called_otherwise(folders):
    record = json.loads((folders.predictions / "run.json").read_text())
    record["cases"][0]["case"] = "renamed"
    (folders.predictions / "run.json").write_text(json.dumps(record))
    view = collect_review([folders.predictions], Beside(images=[folders.images]))
    assert view.cases[0].image == folders.images / "good.nii.gz"


def test_scans_of_one_name_are_told_apart_by_the_folders_of_their_cases(folders, tmp_path):
    record = json.loads((folders.predictions / "run.json").read_text())
    scans = []
    for row in record["cases"]:
        row["image"] = "flair.nii.gz"
        scans.append(tmp_path / "patients" / row["case"] / "flair.nii.gz")
        scans[-1].parent.mkdir(parents=True)
        scans[-1].write_bytes((folders.images / "good.nii.gz").read_bytes())
    (folders.predictions / "run.json").write_text(json.dumps(record))
    view = collect_review([folders.predictions], Beside(images=scans))
    assert {case.name: case.image for case in view.cases} == {scan.parent.name: scan for scan in scans}
    view = collect_review([folders.predictions], Beside(images=scans[:1]))  # those of others are not given
    assert [case.image for case in view.cases] == [scans[0], None, None, None]


def one_name_for_all(folders, places):
    """Scans in folders that are called otherwise than the cases, and a record that has their one file name."""
    record = json.loads((folders.predictions / "run.json").read_text())
    for row, place in zip(record["cases"], places, strict=True):
        row["image"] = "flair.nii.gz"
        place.mkdir(parents=True)
        (place / "flair.nii.gz").write_bytes((folders.images / "good.nii.gz").read_bytes())
    (folders.predictions / "run.json").write_text(json.dumps(record))
    return [place / "flair.nii.gz" for place in places]


def test_a_case_that_several_scans_may_belong_to_is_drawn_without_and_says_so(page, folders, tmp_path):
    scans = one_name_for_all(folders, [tmp_path / name for name in ("x", "fair", "poor", "broken")])
    view = collect_review([folders.predictions], Beside(images=scans))
    assert [case.image for case in view.cases] == [None, *scans[1:]]
    (told,) = view.cases[0].warnings
    assert told.startswith("AMBIGUOUS: drawn without its scan, since 4 scans are called flair.nii.gz")
    write_review(tmp_path / "report.html", view)
    assert told in (tmp_path / "report.html").read_text()


def test_scans_of_which_none_is_known_whose_it_is_are_refused(folders, tmp_path):
    scans = one_name_for_all(folders, [tmp_path / name for name in "xyzw"])
    with pytest.raises(InputError, match=r"4 scans are called flair\.nii\.gz") as caught:
        collect_review([folders.predictions], Beside(images=scans))
    assert caught.value.code == "AMBIGUOUS"
    assert "--data-list" in caught.value.fix


def test_of_a_listed_folder_with_several_series_the_one_that_was_predicted_is_drawn(folders, tmp_path):
    for number, name in enumerate("ab"):
        plan_series(shape=(3 + number, 4, 5)).write(tmp_path / "visit" / name)
    record = json.loads((folders.predictions / "run.json").read_text())
    record["settings"]["dicom"] = {"series": 2}
    (folders.predictions / "run.json").write_text(json.dumps(record))
    view = collect_review([folders.predictions], Beside(images={"good": tmp_path / "visit"}))
    assert (view.cases[0].image, view.cases[0].series) == (tmp_path / "visit", 2)
    assert view.cases[1].image is None


def test_a_mask_that_is_gone_is_a_failed_case(folders):
    (folders.predictions / "good_seg.nii.gz").unlink()
    found = {case.name: case for case in collect_review([folders.predictions]).cases}
    assert found["good"].prediction is None
    assert found["good"].error == "its mask is no longer in the folder"


def test_a_record_cannot_name_files_outside_its_folder(folders):
    record = json.loads((folders.predictions / "run.json").read_text())
    record["cases"][0]["output"] = "../labels/good.nii.gz"
    (folders.predictions / "run.json").write_text(json.dumps(record))
    assert collect_review([folders.predictions]).cases[0].prediction is None


def test_the_map_of_uncertainty_is_found_beside_the_masks(folders):
    write_map(folders.predictions / "maps" / "good_uncertainty.nii.gz", label_of())
    found = {case.name: case for case in collect_review([folders.predictions]).cases}
    assert found["good"].uncertainty_map == folders.predictions / "maps" / "good_uncertainty.nii.gz"
    assert found["poor"].uncertainty_map is None


def test_a_map_that_the_record_does_not_list_is_of_an_earlier_run(folders):
    record = json.loads((folders.predictions / "run.json").read_text())
    listed = {"good": ["good_seg.nii.gz"], "fair": ["fair_seg.nii.gz", "maps/fair_uncertainty.nii.gz"]}
    listed["poor"] = ["poor_seg.nii.gz", "sub-poor_desc-uncertainty_map.nii.gz"]
    for row in record["cases"]:
        row["outputs"] = dict.fromkeys(listed.get(row["case"], ()), "0" * 64)
        write_map(folders.predictions / "maps" / f"{row['case']}_uncertainty.nii.gz", label_of())
    write_map(folders.predictions / "sub-poor_desc-uncertainty_map.nii.gz", label_of())
    (folders.predictions / "run.json").write_text(json.dumps(record))
    found = {case.name: case.uncertainty_map for case in collect_review([folders.predictions]).cases}
    assert found == {
        "good": None,
        "fair": folders.predictions / "maps" / "fair_uncertainty.nii.gz",
        "poor": folders.predictions / "sub-poor_desc-uncertainty_map.nii.gz",
        "broken": None,
    }


def test_a_run_alone_shows_its_curves_and_says_that_there_are_no_cases(page, folders):
    text = page(folders.run, labels=False, images=False)
    assert "No predictions were given" in text
    assert 'alt="Each term of the loss over iterations"' in text
    assert 'alt="What the pseudo-labels look like over iterations"' in text
    assert 'id="cases"' not in text


def test_predictions_alone_have_no_section_on_the_training(page, folders):
    text = page(folders.predictions)
    assert 'id="training"' not in text
    assert "3 of 4 cases were segmented." in text
    assert "1 failed." in text


def test_a_case_that_cannot_be_drawn_is_named(page, folders):
    (folders.images / "fair.nii.gz").write_bytes(b"no scan")
    text = page(folders.predictions)
    assert re.search(r"Could not be drawn: [^<]*\(fair.nii.gz\)", text)
    assert text.count('class="planes"') == 2


def test_the_structures_of_a_case_have_what_the_tables_say(folders):
    view = collect_review([folders.predictions], Beside(labels=folders.labels))
    found = structure_table(next(case for case in view.cases if case.name == "fair"), view.table)
    assert found["heads"] == ["ml", "Voxels", "Parts", "At the border", "Label, ml", "Dice", "HD95"]
    assert found["lines"][0] == {"name": "heart", "cells": ["0.19", "96", "1", "no", "0.2", "0.750", "1.0 mm"]}


def test_a_mark_belongs_to_its_mask_whenever_that_was_predicted(folders):
    def keys():
        return {case.name: case.key for case in collect_review([folders.predictions]).cases}

    view, first = collect_review([folders.predictions]), keys()
    assert len({first[name] for name in SHIFTS}) == 3
    record = (folders.predictions / "run.json").read_text()
    (folders.predictions / "run.json").write_text(record.replace("2026-01-02", "2026-07-08").replace("1.5", "1.7"))
    assert keys() == first
    assert collect_review([folders.predictions], Beside(labels=folders.labels)).identity == view.identity
    (folders.predictions / "run.json").unlink()
    assert keys() == {name: first[name] for name in SHIFTS}
    write_label(folders.predictions / "fair_seg.nii.gz", label_of(2), affine=AFFINE)
    assert {name for name, key in keys().items() if key != first[name]} == {"fair"}
    assert collect_review([folders.predictions]).identity != view.identity


def test_a_ranking_comes_with_its_interval_and_one_that_may_be_none_is_not_to_be_gone_by():
    dice = {str(number): number / 20 for number in range(12)}
    good = ranking_words({case: value**2 for case, value in dice.items()}, dice)
    assert good.startswith("Rank correlation of confidence and Dice: 1.00 (")
    assert good.endswith("95 % interval over 12 cases: 1.00 to 1.00).")
    none = ranking_words({case: (7 * int(case)) % 5 for case in dice}, dice)
    assert none.endswith("That includes no use at all: do not go by it here.")
    assert "3 cases cannot tell" in ranking_words({"0": 0.1, "1": 0.3, "2": 0.2}, dice)
    assert ranking_words({"0": 0.1, "1": 0.3}, dice) == ""


def test_two_names_that_would_meet_on_the_figure_of_volumes_are_one():
    near, far = ({f"case_{number}": 1 + number * step for number in range(5)} for step in (0.02, 2.0))

    def names(values):
        return [one.get_text() for one in volume_figure({"heart": values}, {}).axes[0].texts]

    assert names(far) == ["case_0", "case_4"]
    assert len(names(near)) == 1


def test_what_is_neither_run_nor_predictions_is_refused(folders, tmp_path):
    with pytest.raises(InputError, match="neither the folder of a training run"):
        collect_review([folders.images])
    with pytest.raises(InputError, match="there is no such folder"):
        collect_review([tmp_path / "nowhere"])
    with pytest.raises(InputError, match="one folder of a prediction is wanted"):
        collect_review([folders.predictions, folders.predictions])


def test_a_page_has_a_name_that_ends_in_html():
    with pytest.raises(InputError, match=r"ends in .html"):
        check_page_name("report.pdf")
