"""A case in 3D: what lies in the page, and that a real browser shows it without a request."""

from __future__ import annotations

import base64
import gzip
import hashlib
import io
import json
import re
import sys
from importlib import resources

import nibabel
import numpy as np
import pytest
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image
from review_samples import AFFINE, NAMES, SHAPE, label_of, write_folders, write_map

from semi_med import cli
from semi_med.errors import InputError
from semi_med.inference.grids import ras_affine, to_ras
from semi_med.inference.io import read_image, write_image
from semi_med.report.review_view import ReviewCase
from semi_med.report.viewer import make_volumes, steps, write_viewer


@pytest.fixture
def case(tmp_path):
    folders = write_folders(tmp_path)
    write_map(tmp_path / "map.nii.gz", label_of() / 4)
    return ReviewCase(
        "fair",
        folders.predictions / "fair_seg.nii.gz",
        image=folders.images / "fair.nii.gz",
        label=folders.labels / "fair.nii.gz",
        uncertainty_map=tmp_path / "map.nii.gz",
        warnings=("EMPTY: </script><script>alert(1)</script>",),
    )


def volumes_of(case, *, most_voxels=10**6, classes=None):
    found = make_volumes(case, classes or {1: "heart", 2: "lung"}, most_voxels=most_voxels)
    stored = {}
    for layer in found.layers:
        image = nibabel.Nifti1Image.from_stream(io.BytesIO(layer.nifti))
        stored[layer.name] = (np.asarray(image.dataobj), image.affine)
    return found, stored


def test_the_page_holds_the_case_in_ras_order_at_its_place(case):
    found, stored = volumes_of(case)
    assert list(stored) == ["Scan", "Prediction", "Label", "Difference", "Uncertainty"]
    scan = read_image(case.image)
    wanted = to_ras(scan.array, scan.affine)[0]
    low, high = np.percentile(wanted, [0.1, 99.9])  # what 8 bits are spread over
    np.testing.assert_allclose(stored["Scan"][0], np.clip(wanted, low, high), atol=(high - low) / 255)
    for _, affine in stored.values():
        np.testing.assert_allclose(affine, ras_affine(AFFINE, SHAPE), atol=1e-5)
    np.testing.assert_array_equal(stored["Prediction"][0], to_ras(label_of(1), AFFINE)[0])
    np.testing.assert_allclose(stored["Uncertainty"][0], to_ras(label_of() / 4, AFFINE)[0], atol=0.002)
    assert (found.shape, found.step) == (SHAPE, (1, 1, 1))


def test_the_difference_tells_who_has_the_structure(case):
    predicted, label = to_ras(label_of(1), AFFINE)[0], to_ras(label_of(), AFFINE)[0]
    found = volumes_of(case)[1]["Difference"][0]
    np.testing.assert_array_equal(found == 1, (predicted > 0) & (label == 0))
    np.testing.assert_array_equal(found == 2, (predicted == 0) & (label > 0))
    np.testing.assert_array_equal(found == 3, (predicted > 0) & (label > 0) & (predicted != label))


def test_a_file_stored_with_other_axes_comes_to_the_same_place(case, tmp_path):
    turn = ornt_transform(io_orientation(AFFINE), axcodes2ornt("PIR"))
    scan = read_image(case.image)
    write_image(
        tmp_path / "turned.nii.gz", apply_orientation(scan.array, turn), affine=AFFINE @ inv_ornt_aff(turn, SHAPE)
    )
    turned = volumes_of(ReviewCase("fair", case.prediction, image=tmp_path / "turned.nii.gz"))[1]
    for name, (array, affine) in volumes_of(ReviewCase("fair", case.prediction, image=case.image))[1].items():
        np.testing.assert_array_equal(turned[name][0], array)
        np.testing.assert_allclose(turned[name][1], affine, atol=1e-5)


def test_numbers_beyond_one_byte_keep_their_names(tmp_path):
    from semi_med.inference.io import write_label

    write_label(tmp_path / "a_seg.nii.gz", label_of().astype(np.uint16) * 300, affine=AFFINE)
    found, stored = volumes_of(ReviewCase("a", tmp_path / "a_seg.nii.gz"), classes={300: "heart"})
    assert [name for name, _ in found.layers[0].labels] == ["", "heart", "class 600"]
    np.testing.assert_array_equal(stored["Prediction"][0], to_ras(label_of(), AFFINE)[0])


def test_a_large_scan_is_thinned_out_its_finest_axes_first():
    assert steps((100, 100, 10), (1, 1, 5), most=100_000) == (1, 1, 1)
    assert steps((100, 100, 10), (1, 1, 5), most=25_000) == (2, 2, 1)
    assert steps((100, 50, 10), (1, 1, 5), most=25_000) == (2, 1, 1)


def test_a_thinned_scan_stays_at_its_place_and_the_page_says_so(case, tmp_path):
    found, stored = volumes_of(case, most_voxels=500)
    assert found.step == (2, 2, 1)
    assert stored["Scan"][0].shape == (6, 7, 8)
    whole = ras_affine(AFFINE, SHAPE)
    np.testing.assert_allclose(stored["Scan"][1] @ [3, 2, 5, 1], whole @ [6, 4, 5, 1], atol=1e-5)
    path = write_viewer(tmp_path / "a.html", case, most_voxels=500)
    assert "thinned out: one of 2 x 2 x 1 is shown" in path.read_text()


def test_the_vendored_library_is_the_published_file_and_its_licences_lie_beside_it():
    folder = resources.files("semi_med.report").joinpath("vendor")
    digest = hashlib.sha256(folder.joinpath("niivue.umd.js").read_bytes()).hexdigest()
    text = folder.joinpath("niivue.LICENSES.txt").read_text()
    assert f"SHA-256 {digest}" in text
    assert "BSD 2-Clause License" in text


def test_the_page_links_to_nothing_is_escaped_and_runs_only_its_own_scripts(case, tmp_path):
    text = write_viewer(tmp_path / "a.html", case, classes={1: NAMES[0], 2: NAMES[1]}).read_text()
    assert "lung &amp; &lt;b&gt;liver" in text
    assert "<b>liver" not in text
    assert "<script>alert" not in text
    assert not re.search(r"(src|href)=|@import", text)
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text, re.S)[1])
    assert facts["layers"][1]["labels"] == ["", *NAMES]
    library = gzip.decompress(base64.b64decode(re.search(r'id="library">(.*?)</script>', text, re.S)[1]))
    script = re.findall(r"<script>(.*?)</script>", text, re.S)[-1]
    for code in (library, script.encode()):
        assert f"'sha256-{base64.b64encode(hashlib.sha256(code).digest()).decode()}'" in text
    assert str(tmp_path) not in text


def test_a_picture_and_a_case_without_files_are_refused(tmp_path):
    Image.new("L", (5, 4)).save(tmp_path / "a.png")
    with pytest.raises(InputError, match="a volume is wanted, this is a picture"):
        write_viewer(tmp_path / "a.html", ReviewCase("a", None, image=tmp_path / "a.png"))
    with pytest.raises(InputError, match="has neither a scan nor a mask to show"):
        write_viewer(tmp_path / "a.html", ReviewCase("a", None))


@pytest.fixture
def command(monkeypatch, capsys):
    """Run `semi-med` in this process: exit code, stdout, stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["semi-med", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    return call


def test_the_command_takes_the_names_of_the_record_beside_the_mask(command, case, tmp_path):
    code, out, err = command("view", case.image, "--prediction", case.prediction, "-o", tmp_path / "a.html")
    assert (code, out) == (0, f"{tmp_path / 'a.html'}\n"), err
    assert "heart" in (tmp_path / "a.html").read_text()
    command("view", case.image, "--prediction", case.prediction, "-o", tmp_path / "a.html", "--class", "ventricle")
    assert "ventricle" in (tmp_path / "a.html").read_text()


def test_a_report_links_to_pages_of_its_worst_cases(command, case, tmp_path):
    masks = case.prediction.parent
    code, out, err = command("report", masks, "--images", case.image.parent, "-o", tmp_path / "r.html", "--in-3d", 2)
    pages = [tmp_path / "r_3d" / name for name in ("001_poor.html", "002_fair.html")]
    assert (code, out.split()) == (0, [str(path) for path in (tmp_path / "r.html", *pages)]), err
    text = (tmp_path / "r.html").read_text()
    assert re.findall(r'href="([^"#]+\.html)"', text) == ["r_3d/001_poor.html", "r_3d/002_fair.html"]
    assert all(page.is_file() for page in pages)


@pytest.mark.browser
def test_a_browser_shows_the_case_and_asks_for_nothing(browse, case, tmp_path):
    path = write_viewer(tmp_path / "a.html", case, classes={1: "heart", 2: "lung"})
    page = browse(path, width=900, height=700)
    page.until(lambda: page.js("document.getElementById('state').hidden"), "the case to be shown")
    text = page.js("document.getElementById('place').textContent")
    # the boxes overlap along the first axis; the slice with most difference lies at a border between them
    assert re.fullmatch(r"[RL] .* mm · Scan .* · Prediction .* · Label .* · Difference .+ · Uncertainty .*", text)
    shown = np.asarray(Image.open(page.screenshot(tmp_path / "a.png")).convert("RGB")).astype(int)
    orange = (shown[..., 0] > shown[..., 2] + 60) & (shown[..., 1] > shown[..., 2] + 20)
    assert orange.mean() > 0.01

    page.js("canvas = document.getElementById('canvas'); canvas.focus()")
    page.press("ArrowLeft")
    assert page.js("document.getElementById('place').textContent") != text
    page.js("v = document.getElementById('view'); v.value = '4'; v.dispatchEvent(new Event('change'))")
    assert [url for url in page.requests if not url.startswith(("data:", "blob:"))] == [path.resolve().as_uri()]
    assert page.complaints == []
