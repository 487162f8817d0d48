"""Slices of a case with outlines as vectors."""

from __future__ import annotations

import re

import numpy as np
import pytest
from nibabel import Nifti1Image
from nibabel.orientations import apply_orientation, axcodes2ornt, inv_ornt_aff, io_orientation, ornt_transform
from PIL import Image
from review_samples import AFFINE, SHAPE, label_of, write_folders, write_map

from semi_med.errors import InputError
from semi_med.inference.io import write_label
from semi_med.report.panels import Volumes, draw_panels, load_volumes, outline
from semi_med.report.review_view import ReviewCase


def corners_of(path):
    """The closed lines of a path, each as points (n, 2): x, y in half voxels."""
    lines = []
    for x, y, rest in re.findall(r"M(-?\d+) (-?\d+)l([-\d ]+)z", path):
        start, steps = np.array([int(x), int(y)]), np.array(rest.split(), int).reshape(-1, 2)
        lines.append(np.concatenate([[start], start + steps.cumsum(axis=0)]))
    return lines


def filled(path, shape):
    """The voxels whose centre lies inside a path, by ray casting: even-odd."""
    found = np.zeros(shape, bool)
    for row, column in np.ndindex(shape):
        x, y = 2 * column + 1, 2 * row + 1.01  # a little below the centre, so that no corner is hit
        for line in corners_of(path):
            for (x0, y0), (x1, y1) in zip(line, np.roll(line, -1, axis=0), strict=True):
                if (y0 > y) != (y1 > y) and x < x0 + (y - y0) * (x1 - x0) / (y1 - y0):
                    found[row, column] ^= True
    return found


def test_the_outline_of_one_voxel_is_the_diamond_round_its_centre():
    region = np.zeros((3, 4), bool)
    region[1, 2] = True  # its centre is at 5, 3 in half voxels
    (line,) = corners_of(outline(region))
    assert sorted(map(tuple, line.tolist())) == [(4, 3), (5, 2), (5, 4), (6, 3)]


def test_an_outline_holds_the_voxels_of_its_region_and_no_others_holes_and_borders_too():
    region = np.random.default_rng(3).random((9, 7)) > 0.4
    np.testing.assert_array_equal(filled(outline(region), region.shape), region)


def test_nothing_has_no_outline():
    assert outline(np.zeros((3, 4), bool)) == ""


def volumes(**others):
    given = {"image": None, "label": None, "uncertainty": None, "spacing": np.array([1.0, 1.0, 2.0])} | others
    return Volumes(prediction=label_of(), **given)


def test_there_are_three_planes_whose_sizes_are_in_mm():
    axial, coronal, sagittal = draw_panels(volumes())
    assert [panel.plane.name for panel in (axial, coronal, sagittal)] == ["Axial", "Coronal", "Sagittal"]
    assert (axial.width, axial.height) == (12, 14)
    assert (coronal.width, coronal.height) == (12, 16)
    assert (sagittal.width, sagittal.height) == (14, 16)
    assert coronal.scale == (0.5, 1.0)


def test_the_first_slice_shows_the_largest_difference_and_the_others_lie_in_the_structure():
    label = label_of()
    label[2:4, 4:8, 4] = 0
    panel = draw_panels(volumes(label=label), slices=3)[0]
    assert panel.slices[panel.first].number == 5  # counted from 1
    assert all(3 <= one.number <= 6 for one in panel.slices)
    assert len(draw_panels(volumes(label=label), slices=1)[0].slices) == 1


def test_the_difference_tells_who_has_the_structure():
    label = label_of(2)
    panel = draw_panels(volumes(label=label), slices=1)[0]
    predicted, expert = (np.take(array, panel.slices[0].number - 1, 2).T[::-1, ::-1] for array in (label_of(), label))
    shown = {name: filled(path, predicted.shape) for name, path in panel.slices[0].difference.items()}
    np.testing.assert_array_equal(shown["prediction"], (predicted > 0) & (expert == 0))
    np.testing.assert_array_equal(shown["label"], (expert > 0) & (predicted == 0))
    np.testing.assert_array_equal(shown["other"], (expert > 0) & (predicted > 0) & (expert != predicted))
    assert all(part.any() for part in shown.values())


def test_an_empty_prediction_shows_the_middle_of_the_scan():
    panel = draw_panels(Volumes(None, np.zeros(SHAPE, np.uint8), None, None, np.ones(3)))[0]
    assert [one.number for one in panel.slices] == [5]
    assert (panel.width, panel.height) == (12, 14)


@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIR", "SAL"])
def test_the_patients_right_is_on_the_left_however_the_file_is_stored(tmp_path, codes):
    array = np.zeros(SHAPE, np.uint8)
    array[9:, 6:8, 3:5] = 1  # towards the patient's right in an RAS file
    affine = np.diag([1.0, 1.0, 2.0, 1.0])
    turn = ornt_transform(io_orientation(affine), axcodes2ornt(codes))
    write_label(
        tmp_path / "a_seg.nii.gz", apply_orientation(array, turn), affine=affine @ inv_ornt_aff(turn, array.shape)
    )
    axial = draw_panels(load_volumes(ReviewCase("a", tmp_path / "a_seg.nii.gz")), slices=1)[0]
    shown = filled(axial.slices[0].prediction[0].path, (14, 12))
    assert shown[:, :3].any() and not shown[:, 3:].any()


def test_files_stored_with_other_axes_are_laid_over_each_other(tmp_path):
    turn = ornt_transform(io_orientation(AFFINE), axcodes2ornt("PIR"))
    write_label(tmp_path / "a_seg.nii.gz", label_of(), affine=AFFINE)
    turned, affine = apply_orientation(label_of(), turn), AFFINE @ inv_ornt_aff(turn, SHAPE)
    write_label(tmp_path / "a.nii.gz", turned, affine=affine)
    found = load_volumes(ReviewCase("a", tmp_path / "a_seg.nii.gz", label=tmp_path / "a.nii.gz"))
    np.testing.assert_array_equal(found.label, found.prediction)


def test_a_scan_on_another_grid_is_refused(tmp_path):
    write_label(tmp_path / "a_seg.nii.gz", label_of(), affine=AFFINE)
    moved = AFFINE.copy()
    moved[0, 3] = 3
    Nifti1Image(np.ones(SHAPE, np.float32), moved).to_filename(tmp_path / "a.nii.gz")
    with pytest.raises(InputError, match="grids lie up to 3 voxels apart"):
        load_volumes(ReviewCase("a", tmp_path / "a_seg.nii.gz", image=tmp_path / "a.nii.gz"))


def test_a_picture_is_upright_and_names_no_side_of_a_patient(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)  # rows, columns
    Image.fromarray(pixels).save(tmp_path / "a.png")
    label = np.zeros((30, 20, 1), np.uint8)
    label[2:6, 3:5] = 1  # columns 2 to 5, rows 3 and 4
    write_label(tmp_path / "a_seg.png", label, affine=np.diag([-1.0, -1.0, 1.0, 1.0]))
    panels = draw_panels(load_volumes(ReviewCase("a", tmp_path / "a_seg.png", image=tmp_path / "a.png")))
    assert [(panel.plane.name, panel.plane.left, panel.width, panel.height) for panel in panels] == [
        ("Picture", "", 30, 20)
    ]
    shown = filled(panels[0].slices[0].prediction[0].path, (20, 30))
    np.testing.assert_array_equal(shown, label[:, :, 0].T > 0)


def test_the_map_of_uncertainty_is_drawn_where_it_is_not_zero(tmp_path):
    folders = write_folders(tmp_path)
    write_map(tmp_path / "map.nii.gz", label_of() > 0)
    case = ReviewCase("good", folders.predictions / "good_seg.nii.gz", uncertainty_map=tmp_path / "map.nii.gz")
    assert all(
        one.heat.startswith("data:image/png;base64,") for p in draw_panels(load_volumes(case)) for one in p.slices
    )
