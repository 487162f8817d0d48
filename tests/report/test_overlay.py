from __future__ import annotations

import numpy as np
import pytest
from nibabel import Nifti1Image

from semi_med.errors import InputError
from semi_med.inference.io import Scan, write_label
from semi_med.report.overlay import PLANES, centre_of, load_drawing, overlay_figure, to_ras
from semi_med.report.views import CaseView

SHAPE = (10, 12, 6)
# axes of the file run posterior, right, inferior; 2, 1 and 3 mm
AFFINE = np.array([[0, 1.0, 0, -6], [-2.0, 0, 0, 10], [0, 0, -3.0, 9], [0, 0, 0, 1]])


def write_case(folder, *, label, prediction, affine=AFFINE):
    Nifti1Image(np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE), affine).to_filename(folder / "i.nii.gz")
    write_label(folder / "l.nii.gz", label, affine=affine)
    write_label(folder / "p.nii.gz", prediction, affine=affine)
    return CaseView("case", folder / "i.nii.gz", folder / "l.nii.gz", {"run": folder / "p.nii.gz"})


def cube():
    array = np.zeros(SHAPE, np.uint8)
    array[2:6, 3:9, 1:4] = 1
    return array


def test_axes_are_turned_to_right_anterior_superior():
    array = np.zeros(SHAPE, np.uint8)
    array[1, 10, 0] = 1  # world: x = 4 (right), y = 8 (anterior), z = 9 (superior)
    turned, spacing = to_ras(Scan(array, AFFINE))
    assert turned.shape == (12, 10, 6)
    assert np.argwhere(turned).tolist() == [[10, 8, 5]]
    assert spacing.tolist() == [1.0, 2.0, 3.0]


def test_planes_go_through_the_centre_of_mass_of_the_label():
    label = np.zeros((9, 9, 9), np.uint8)
    label[2:5, 1:2, 4:9] = 1
    assert centre_of(label, []) == (3, 1, 6)


def test_planes_go_through_the_prediction_where_the_label_is_empty():
    prediction = np.zeros((9, 9, 9), np.uint8)
    prediction[7, 2, 3] = 1
    assert centre_of(np.zeros_like(prediction), [prediction]) == (7, 2, 3)


def test_panels_show_right_and_anterior_on_the_left_in_true_proportions(tmp_path):
    drawing = load_drawing(write_case(tmp_path, label=cube(), prediction=cube()), runs=["run"])
    figure = overlay_figure(drawing, captions={}, colours={"run": "orange"})
    for axes, plane in zip(figure.axes, PLANES, strict=True):
        left, right = axes.get_xlim()
        bottom, top = axes.get_ylim()
        assert left > right and top > bottom  # right and anterior grow towards the left, superior grows upwards
        assert left - right == pytest.approx(top - bottom)
        assert axes.get_aspect() == 1.0
        x0, x1, y0, y1 = axes.images[0].get_extent()
        size = np.array([12, 10, 6]) * drawing.spacing
        assert (x1 - x0, y1 - y0) == pytest.approx((size[plane.across], size[plane.up]))
    letters = [text.get_text() for text in figure.axes[2].texts[:4]]
    assert letters == ["A", "P", "S", "I"]


def test_the_contour_of_the_label_lies_where_the_label_is(tmp_path):
    drawing = load_drawing(write_case(tmp_path, label=cube(), prediction=0 * cube()), runs=["run"])
    axial = overlay_figure(drawing, captions={}, colours={"run": "orange"}).axes[0]
    (contour,) = axial.collections
    found = np.concatenate([path.vertices for path in contour.get_paths()])
    # file: i 2..5 are y = 6 to 0, RAS index 7..4 at 2 mm; j 3..8 are RAS index 3..8 at 1 mm; contours lie half-way out
    assert found.min(axis=0).tolist() == [2.5, 7.0]
    assert found.max(axis=0).tolist() == [8.5, 15.0]


def test_a_structure_at_the_border_has_a_closed_contour(tmp_path):
    full = np.ones(SHAPE, np.uint8)
    drawing = load_drawing(write_case(tmp_path, label=full, prediction=full), runs=[])
    (contour,) = overlay_figure(drawing, captions={}, colours={}).axes[0].collections
    (path,) = contour.get_paths()
    np.testing.assert_allclose(path.vertices[0], path.vertices[-1])


def test_a_slice_stored_as_a_volume_is_drawn_in_one_panel(tmp_path):
    flat = np.zeros((10, 12, 1), np.uint8)
    flat[3:6, 3:6] = 1
    Nifti1Image(flat.astype(np.float32), np.eye(4)).to_filename(tmp_path / "i.nii.gz")
    write_label(tmp_path / "l.nii.gz", flat, affine=np.eye(4))
    drawing = load_drawing(CaseView("c", tmp_path / "i.nii.gz", tmp_path / "l.nii.gz", {}), runs=[])
    assert [axes.get_title() for axes in overlay_figure(drawing, captions={}, colours={}).axes] == ["Axial"]


def test_an_image_on_another_grid_is_refused(tmp_path):
    case = write_case(tmp_path, label=cube(), prediction=cube())
    moved = AFFINE.copy()
    moved[0, 3] += 1
    write_label(tmp_path / "p.nii.gz", cube(), affine=moved)
    with pytest.raises(InputError, match=r"p\.nii\.gz and l\.nii\.gz: the grids lie up to 1 voxels apart"):
        load_drawing(case, runs=["run"])
