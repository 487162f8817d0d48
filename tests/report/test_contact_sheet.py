"""Thumbnails show each case in one orientation with its label where the header places it; a page holds them all."""

import io
import re

import nibabel as nib
import numpy as np
import pytest
from PIL import Image

from semi_med.data.folders import find_cases
from semi_med.data.thumbnails import GAP, SIDE, colour_of, thumbnails
from semi_med.data.validation import Options, examine_cases
from semi_med.errors import InputError
from semi_med.inference.io import Scan
from semi_med.report.contact_sheet import write_contact_sheet

SHAPE = (40, 50, 30)
RAS = np.diag([1.0, 1.0, 1.0, 1.0])


def brain(marks: tuple[tuple[int, int, int], ...] = ()) -> np.ndarray:
    """Grey everywhere, white cubes of 6 voxels at some places."""
    array = np.full(SHAPE, 50, np.float32)
    array[0, 0, 0] = 0
    for i, j, k in marks:
        array[i : i + 6, j : j + 6, k : k + 6] = 200
    return array


def panels(strip: bytes) -> list[np.ndarray]:
    picture = np.asarray(Image.open(io.BytesIO(strip))).astype(int)
    starts = range(0, picture.shape[1], SIDE + GAP)
    return [picture[:, start : start + SIDE] for start in starts]


def where(panel: np.ndarray, colour: tuple[int, int, int]) -> tuple[float, float]:
    """Mean row and column, as shares of the panel, of the pixels near a colour."""
    near = np.abs(panel - np.array(colour)).sum(axis=2) < 120
    rows, columns = np.nonzero(near)
    assert len(rows)
    return rows.mean() / SIDE, columns.mean() / SIDE


def case(i: int, j: int, k: int) -> tuple[Scan, Scan]:
    label = np.zeros(SHAPE, np.uint8)
    label[i : i + 6, j : j + 6, k : k + 6] = 1
    return Scan(brain(((i, j, k),)), RAS), Scan(label, RAS)


def test_right_is_left_anterior_is_up_and_superior_is_up():
    axial, coronal, sagittal = panels(thumbnails(*case(32, 40, 22)))  # at the right, front and upper end
    for panel in (axial, coronal, sagittal):
        row, column = where(panel, colour_of(1))
        assert row < 0.5 and column < 0.5
    axial, coronal, sagittal = panels(thumbnails(*case(1, 1, 1)))
    for panel in (axial, coronal, sagittal):
        row, column = where(panel, colour_of(1))
        assert row > 0.5 and column > 0.5


def test_every_orientation_gives_the_same_pictures():
    image, label = case(30, 8, 20)
    expected = panels(thumbnails(image, label))
    for codes in ("LPS", "PIR", "SAL", "IRP"):
        order = nib.orientations.ornt_transform(
            nib.orientations.io_orientation(RAS), nib.orientations.axcodes2ornt(tuple(codes))
        )
        affine = RAS @ nib.orientations.inv_ornt_aff(order, SHAPE)
        turned = [
            Scan(np.ascontiguousarray(nib.orientations.apply_orientation(scan.array, order)), affine)
            for scan in (image, label)
        ]
        for found, wanted in zip(panels(thumbnails(*turned)), expected, strict=True):
            assert np.abs(found - wanted).max() < 30, codes  # JPEG


def test_a_label_whose_header_mirrors_it_is_drawn_on_the_other_side():
    image, label = case(32, 20, 12)
    mirrored = np.diag([-1.0, 1, 1, 1])
    mirrored[0, 3] = SHAPE[0] - 1
    right, _, _ = panels(thumbnails(image, label))
    wrong, _, _ = panels(thumbnails(image, Scan(label.array, mirrored)))
    assert where(right, colour_of(1))[1] < 0.4
    assert where(wrong, colour_of(1))[1] > 0.6


def test_voxel_sizes_shape_the_panels():
    scan = Scan(brain(), np.diag([1.0, 1.0, 5.0, 1.0]), ("NO_ORIENTATION: no letters",))
    axial, coronal, _ = panels(thumbnails(scan, None))
    heights = [np.count_nonzero(panel[:, SIDE // 2].sum(axis=1) > 60) / SIDE for panel in (axial, coronal)]
    assert heights == pytest.approx([50 / 150, 1], abs=0.03)  # mm of 30 slices of 5 mm


def test_classes_have_colours_of_their_own():
    label = np.zeros(SHAPE, np.uint8)
    label[5:15, 10:40, 5:25], label[25:35, 10:40, 5:25] = 1, 2
    axial = panels(thumbnails(Scan(brain(), RAS), Scan(label, RAS)))[0]
    assert where(axial, colour_of(1))[1] > 0.5 > where(axial, colour_of(2))[1]


def test_what_is_not_known_is_grey_and_looks_like_no_class():
    label = np.zeros(SHAPE, np.uint8)
    label[5:15, 10:40, 5:25], label[25:35, 10:40, 5:25] = 3, 255
    axial = panels(thumbnails(Scan(brain(), RAS), Scan(label, RAS)))[0]
    assert where(axial, colour_of(3))[1] > 0.5 > where(axial, colour_of(255))[1]
    assert colour_of(255) not in {colour_of(value) for value in range(1, 255)}


def test_a_picture_is_one_upright_panel_in_colour_without_letters():
    array = np.zeros((20, 10, 1, 3), np.float32)
    array[:10, :, :, 0] = 255  # the left half is red
    scan = Scan(array, np.diag([-1.0, -1, 1, 1]), ("PICTURE: x",))
    (panel,) = panels(thumbnails(scan, None))
    assert where(panel, (255, 0, 0))[1] < 0.4
    assert not (panel.min(axis=2) > 100).any()  # a letter would be white


def test_letters_are_drawn_in_the_middle_of_the_sides_where_the_orientation_is_known():
    known = panels(thumbnails(Scan(brain(), RAS), None))
    unknown = panels(thumbnails(Scan(brain(), RAS, ("NO_ORIENTATION: x",)), None))
    middle, end = slice(SIDE // 2 - 8, SIDE // 2 + 8), slice(-16, None)
    for with_letters, without in zip(known, unknown, strict=True):
        differs = np.abs(with_letters - without).max(axis=2) > 60
        for place in ((middle, slice(0, 16)), (middle, end), (slice(0, 16), middle), (end, middle)):
            assert differs[place].any()
            differs[place] = False
        assert not differs.any()


def test_without_an_image_there_is_nothing_to_draw():
    assert thumbnails(None, Scan(np.zeros(SHAPE, np.uint8), RAS)) is None


# ---- the page ------------------------------------------------------------------------------------------------------


@pytest.fixture
def findings(tmp_path):
    folder = tmp_path / "data"
    (folder / "images").mkdir(parents=True)
    (folder / "labels").mkdir()
    for name, place in (("a", (32, 40, 22)), ('"><script>x', (5, 5, 5))):
        image, label = case(*place)
        nib.save(nib.Nifti1Image(image.array, RAS), folder / f"images/{name}.nii.gz")
        nib.save(nib.Nifti1Image(label.array, RAS), folder / f"labels/{name}.nii.gz")
    (folder / "images/broken.nii.gz").write_bytes(b"x")
    return examine_cases(find_cases(folder).items, options=Options(look=thumbnails))


def test_the_page_holds_every_case_and_asks_nothing_of_a_network(tmp_path, findings):
    text = write_contact_sheet(tmp_path / "s.html", findings, title="Scans").read_text()
    assert text.count("data:image/jpeg;base64,") == 2
    assert "2 of 3 cases shown" in text
    assert "broken" in text and "FORMAT" in text
    assert "40 x 50 x 30 · 1 x 1 x 1 mm · RAS · label 1" in text
    assert not re.search(r"""(src|href)=["'](?!data:)|https?://""", text)
    assert "<script>" not in text and "&lt;script&gt;x" in text


def test_the_picture_has_a_place_for_every_case(tmp_path, findings):
    picture = Image.open(write_contact_sheet(tmp_path / "s.png", findings, title="Scans"))
    strip = 3 * SIDE + 2 * GAP
    assert picture.size[0] == 3 * (strip + 8)
    shown = np.asarray(picture)[30 : 30 + SIDE]
    used = [shown[:, n * (strip + 8) : n * (strip + 8) + strip].max() > 100 for n in range(3)]
    assert used == [True, True, False]  # the broken one comes last


def test_of_many_cases_some_are_drawn_evenly_spread(tmp_path):
    for number in range(9):
        nib.save(nib.Nifti1Image(brain() + number, RAS), tmp_path / f"{number}.nii")
    options = Options(look=thumbnails, most_looks=4)
    drawn = [v.case for v in examine_cases(find_cases(tmp_path).items, options=options).verdicts if v.kept]
    assert drawn == ["0", "3", "6"]


def test_another_kind_of_file_is_refused(tmp_path, findings):
    with pytest.raises(InputError, match=r"ends in \.html or \.png"):
        write_contact_sheet(tmp_path / "s.pdf", findings, title="Scans")
