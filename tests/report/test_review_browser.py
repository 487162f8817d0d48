"""The report in a real browser: keys, marks that are kept and exported, layers, widths, and no request."""

from __future__ import annotations

import csv
import json

import pytest
from review_samples import AFFINE, label_of, write_folders

from semi_med.inference.io import write_label
from semi_med.report.review import write_review
from semi_med.report.review_data import collect_review
from semi_med.report.review_labels import Beside

pytestmark = pytest.mark.browser


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    root = tmp_path_factory.mktemp("review_page")
    folders = write_folders(root)
    view = collect_review([folders.predictions], Beside(images=[folders.images], labels=folders.labels))
    return write_review(root / "report.html", view)


def marks(page):
    return page.js("Array.from(document.querySelectorAll('.card')).map(c => c.querySelector('.badge').textContent)")


def test_keys_mark_cases_and_go_on_and_the_marks_are_kept_and_exported(browse, report):
    page = browse(report)
    page.press("p", "f", "a")
    assert marks(page) == ["Pass", "Fail", "Artifact"]
    page.press("k", "u", "h")
    assert marks(page) == ["Pass", "", "Artifact"]
    assert page.js("document.getElementById('count').textContent") == "2 of 3 marked: 1 pass, 0 fail, 1 artifact"
    assert page.js("getComputedStyle(document.querySelector('.cut .prediction')).display") == "none"

    page.js("document.getElementById('export-json').click(), document.getElementById('export-csv').click()")
    files = page.until(lambda: len(found := sorted(page.downloads.glob("marks_*.[cj]s*"))) == 2 and found, "two files")
    with files[0].open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    content = page.until(lambda: files[1].read_text() and json.loads(files[1].read_text()), "the file to be written")
    assert [(row["case"], row["mark"]) for row in rows] == [("poor", "pass"), ("fair", ""), ("good", "artifact")]
    assert [line["mark"] for line in content["marks"]] == ["pass", None, "artifact"]
    assert content["marks"][2]["dice"] == 1

    page.open(report)
    assert marks(page) == ["Pass", "", "Artifact"]
    assert [url for url in page.requests if not url.startswith(("data:", "file:"))] == []
    assert {url for url in page.requests if url.startswith("file:")} == {report.resolve().as_uri()}
    assert page.complaints == []


def test_marks_are_found_again_by_a_report_of_the_same_masks_and_are_none_of_another_mask(browse, tmp_path):
    folders = write_folders(tmp_path)
    page = browse(write_review(tmp_path / "report.html", collect_review([folders.predictions])))
    page.press("p", "f", "a")
    names = page.js("Array.from(document.querySelectorAll('.card')).map(c => c.dataset.case)")
    (folders.predictions / "run.json").unlink()
    write_label(folders.predictions / f"{names[1]}_seg.nii.gz", label_of(2), affine=AFFINE)
    page.open(write_review(tmp_path / "again.html", collect_review([folders.predictions])))
    again = page.js("Array.from(document.querySelectorAll('.card')).map(c => c.dataset.case)")
    assert dict(zip(again, marks(page), strict=True)) == {names[0]: "Pass", names[1]: "", names[2]: "Artifact"}


def test_sliders_set_the_opacity_and_the_slice_and_boxes_the_layers(browse, report):
    page = browse(report)
    page.js("o = document.getElementById('opacity'); o.value = 80; o.dispatchEvent(new Event('input'))")
    assert page.js("getComputedStyle(document.querySelector('.difference path')).fillOpacity") == "0.8"
    page.js("s = document.querySelector('.card figure input'); s.value = 0; s.dispatchEvent(new Event('input'))")
    shown = "Array.from(document.querySelector('.card figure').querySelectorAll('.cut')).map(c => c.checkVisibility())"
    assert page.js(shown) == [True, False, False]
    first = page.js("document.querySelector('.card .cut').dataset.number")
    assert page.js("document.querySelector('.card figure output').textContent") == first
    page.js("document.querySelector('[data-layer=label]').click()")
    display = "Array.from(document.querySelectorAll('.cut %s')).map(part => getComputedStyle(part).display)"
    assert set(page.js(display % ".label")) == {"none"}
    assert "none" not in page.js(display % ".prediction")


def test_only_the_wanted_marks_are_shown_and_letters_in_a_list_mark_nothing(browse, report):
    page = browse(report)
    page.press("f")
    page.js("f = document.getElementById('filter'); f.value = 'none'; f.dispatchEvent(new Event('change'))")
    assert page.js("Array.from(document.querySelectorAll('.card')).map(c => c.hidden)") == [True, False, False]
    page.js("document.getElementById('filter').focus()")
    page.press("p")
    assert marks(page) == ["Fail", "", ""]


def test_why_a_case_failed_does_not_fill_a_narrow_window(browse, report):
    page = browse(report, width=400)
    failed = "Array.from(document.querySelectorAll('td.status.warn')).map(one => one.getBoundingClientRect().height)"
    assert 0 < max(page.js(failed)) < 150


@pytest.mark.parametrize("width", [400, 1280])
def test_the_page_fits_its_window(browse, report, width):
    page = browse(report, width=width)
    assert page.js("document.documentElement.scrollWidth") <= width
    assert page.js("document.querySelector('.cut').getBoundingClientRect().width") > 250


def test_every_control_has_a_name(browse, report):
    page = browse(report)
    page.call("Accessibility.enable")
    nodes = page.call("Accessibility.getFullAXTree")["nodes"]
    controls = [n for n in nodes if n.get("role", {}).get("value") in ("button", "slider", "checkbox", "combobox")]
    assert len(controls) > 15
    assert [n["role"]["value"] for n in controls if not n.get("name", {}).get("value")] == []
