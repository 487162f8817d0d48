"""The embedded phantom: plausible enough for a demo, hard enough for a lesson, and the same bytes every time."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from semi_med.datasets import phantom, phantom_draw, phantom_render
from semi_med.errors import InputError

NUMBERS = range(8)
RING = ndimage.generate_binary_structure(3, 1)


@pytest.fixture(scope="module")
def drawn() -> list[phantom_draw.PhantomCase]:
    return [phantom_draw.draw_case(number) for number in NUMBERS]


@pytest.fixture(scope="module")
def rendered(drawn: list[phantom_draw.PhantomCase]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    return [phantom_render.render(case) for case in drawn]


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("phantom")
    phantom.prepare(target, cases={"labeled": 1, "unlabeled": 1, "test": 1})
    return target


def dice(a: np.ndarray, b: np.ndarray) -> float:
    return float(2 * (a & b).sum() / (a.sum() + b.sum()))


def neighbours(image: np.ndarray, label: np.ndarray, *, inner: int, outer: int) -> np.ndarray:
    """Values between `inner` and `outer` voxels outside the label."""
    near = ndimage.binary_dilation(label, RING, iterations=inner)
    return image[ndimage.binary_dilation(label, RING, iterations=outer) & ~near]


# ---- the drawing -----------------------------------------------------------


def test_a_demo_volume_has_the_promised_matrix_and_spacing(drawn):
    for case in (phantom_draw.draw_case(number) for number in range(200)):
        assert all(low <= n <= high for n, low, high in zip(case.shape, (72, 72, 48), (88, 88, 60), strict=True))
        assert 1.25 <= case.spacing[0] == case.spacing[1] <= 1.6
        assert 1.1 <= case.spacing[2] <= 1.6


def test_a_large_volume_has_the_grid_of_the_public_atrium_crops():
    for case in (phantom_draw.draw_case(number, size="large") for number in range(50)):
        assert case.spacing == (0.625, 0.625, 0.625)
        assert 148 <= case.shape[0] <= 244 and 132 <= case.shape[1] <= 200 and case.shape[2] == 88


def test_a_case_depends_on_seed_and_number_alone():
    assert phantom_draw.draw_case(3, seed=1) == phantom_draw.draw_case(3, seed=1)
    assert phantom_draw.draw_case(3, seed=1) != phantom_draw.draw_case(3, seed=2)
    assert phantom_draw.draw_case(3, seed=1) != phantom_draw.draw_case(1, seed=3)


def test_a_drawn_case_can_be_written_down(drawn):
    assert json.loads(json.dumps(dataclasses.asdict(drawn[0])))["orientation"] in phantom_draw.ORIENTATIONS


def test_the_number_of_veins_varies_between_three_and_five():
    assert {len(phantom_draw.draw_case(number).veins) for number in range(60)} == {3, 4, 5}


def test_some_cases_have_low_contrast_and_some_high():
    heart = [phantom_draw.draw_case(number).values["heart"] for number in range(60)]
    assert min(heart) < 0.45 and max(heart) > 0.68


def test_another_size_is_refused_by_name():
    with pytest.raises(InputError, match="demo or large, got 'huge'"):
        phantom_draw.draw_case(0, size="huge")


def test_a_negative_case_is_refused():
    with pytest.raises(InputError, match="0 or more, got 0 and -1"):
        phantom_draw.draw_case(-1)


# ---- the picture -----------------------------------------------------------


def test_image_and_label_have_one_shape_and_integers_as_scanners_store_them(drawn, rendered):
    for case, (image, label, _) in zip(drawn, rendered, strict=True):
        assert image.shape == label.shape and sorted(image.shape) == sorted(case.shape)
        assert image.dtype == np.dtype(case.dtype) and label.dtype == np.uint8
        assert set(np.unique(label)) == {0, 1}
    assert {case.dtype for case in drawn} == {"uint8", "int16"}


def test_the_label_is_one_piece(rendered):
    for _, label, _ in rendered:
        pieces, _ = ndimage.label(label)
        assert np.bincount(pieces.ravel())[1:].max() > 0.99 * label.sum()


def test_the_atrium_fills_5_to_15_percent_of_the_volume(rendered):
    assert all(0.05 < label.mean() < 0.15 for _, label, _ in rendered)


def test_the_atrium_has_the_volume_of_an_atrium_in_ml(rendered):
    for _, label, affine in rendered:
        assert 30 < label.sum() * abs(np.linalg.det(affine[:3, :3])) / 1000 < 140


def test_axis_orders_vary_and_are_the_drawn_ones(drawn, rendered):
    codes = ["".join(nib.aff2axcodes(affine)) for _, _, affine in rendered]
    assert codes == [case.orientation for case in drawn]
    assert len(set(codes)) >= 3


def test_affines_are_oblique_and_keep_the_drawn_spacing(drawn, rendered):
    for case, (_, _, affine) in zip(drawn, rendered, strict=True):
        lengths = np.linalg.norm(affine[:3, :3], axis=0)
        np.testing.assert_allclose(sorted(lengths), sorted(case.spacing), rtol=1e-6)
        assert np.count_nonzero(np.abs(affine[:3, :3]) > 1e-3) > 3


def test_reordering_the_axes_moves_no_voxel_in_the_scanner(drawn, rendered):
    case = dataclasses.replace(drawn[0], orientation="RAS")
    assert drawn[0].orientation != "RAS"
    places = []
    for label, affine in [phantom_render.render(case)[1:], rendered[0][1:]]:
        places.append(nib.affines.apply_affine(affine, np.argwhere(label).mean(0)))
    np.testing.assert_allclose(*places, atol=1e-6)


def test_the_atrium_lies_where_its_pose_puts_it(drawn):
    still = dataclasses.replace(drawn[0], shift=(0.0, 0.0, 0.0), orientation="RAS")
    moved = dataclasses.replace(still, shift=(5.0, 0.0, 0.0))
    centers = []
    for case in (still, moved):
        _, label, affine = phantom_render.render(case)
        centers.append(nib.affines.apply_affine(affine, np.argwhere(label).mean(0)))
    np.testing.assert_allclose(centers[1] - centers[0], (5, 0, 0), atol=0.6)


def test_a_pulmonary_vein_stays_bright_where_its_label_has_ended(drawn):
    case = dataclasses.replace(drawn[0], noise=0.0, ghost=0.0, blur=0.3, bias=(0.0,) * 6, texture=0.0)
    image, label, _ = phantom_render.render(dataclasses.replace(case, orientation="RAS"))
    canvas = phantom_render._Canvas(case)
    blood, labeled = phantom_render._atrium(canvas, case)
    np.testing.assert_array_equal(labeled < 0, label.astype(bool))
    beyond = np.zeros(label.shape, bool)
    for vein in case.veins:
        distance, along = phantom_render._tube_distance(canvas.position, vein)
        beyond |= (distance < -2.5) & (along > phantom_render.VEIN_MM + 1) & (blood < -2)
    beyond &= labeled > 1
    assert beyond.sum() > 20
    assert np.median(image[beyond]) > 0.9 * np.median(image[label == 1])


def test_blood_goes_on_through_the_mitral_valve_where_the_label_ends(drawn):
    case = dataclasses.replace(drawn[0], noise=0.0, orientation="RAS")
    image, label, _ = phantom_render.render(case)
    canvas = phantom_render._Canvas(case)
    inside = phantom_render._tube_distance(canvas.position, case.mitral)[0] < -4
    assert np.median(image[inside & (label == 0)]) > 0.85 * np.median(image[inside & (label == 1)])
    assert (inside & (label == 0)).sum() > 100


def test_no_threshold_segments_the_atrium(rendered):
    for image, label, _ in rendered:
        thresholds = np.percentile(image, np.arange(20, 100, 2))
        assert max(dice(image > threshold, label == 1) for threshold in thresholds) < 0.6


def test_many_voxels_near_the_atrium_are_as_bright_as_it_is(rendered):
    for image, label, _ in rendered:
        low, high = np.percentile(image[label == 1], [10, 90])
        near = neighbours(image, label, inner=2, outer=9)
        assert ((near > low) & (near < high)).mean() > 0.15


def test_cases_differ_in_shape_brightness_and_noise(drawn, rendered):
    assert len({case.shape for case in drawn}) > 4
    assert len({int(label.sum()) for _, label, _ in rendered}) == len(rendered)
    noise = [case.noise for case in drawn]
    assert max(noise) > 1.5 * min(noise)


def test_every_image_is_lit_everywhere_and_seldom_saturated(rendered):
    for image, _, _ in rendered:
        assert image.min() >= 0 and np.median(image) > 0
        assert (image == np.iinfo(image.dtype).max).mean() < 0.001


def test_rendering_twice_gives_the_same_voxels(drawn, rendered):
    image, label, affine = phantom_render.render(drawn[0])
    np.testing.assert_array_equal(image, rendered[0][0])
    np.testing.assert_array_equal(label, rendered[0][1])
    np.testing.assert_array_equal(affine, rendered[0][2])


# ---- the geometry, by hand -------------------------------------------------


def at(*points: tuple[float, float, float]) -> np.ndarray:
    """Positions (3, n, 1, 1) of some points."""
    return np.array(points, np.float32).T[:, :, None, None]


def test_distance_to_a_tube_and_place_along_it_are_those_of_a_drawn_line():
    tube = phantom_draw.Tube(((0.0, 0.0, 0.0), (10.0, 0.0, 0.0), (20.0, 0.0, 0.0)), (2.0, 2.0, 4.0))
    distance, along = phantom_render._tube_distance(at((5, 3, 0), (15, 0, 0), (23, 4, 0)), tube)
    np.testing.assert_allclose(distance.ravel(), [3 - 2, 0 - 3, 5 - 4], atol=1e-5)
    np.testing.assert_allclose(along.ravel(), [-5, 5, 10], atol=1e-5)


def test_distance_to_a_sphere_is_exact():
    blob = phantom_draw.Blob((1.0, 0.0, 0.0), (2.0, 2.0, 2.0))
    np.testing.assert_allclose(
        phantom_render._blob_distance(at((6, 0, 0), (1, 1, 0)), blob).ravel(), [3, -1], atol=1e-4
    )


def test_the_long_axis_of_a_blob_points_where_it_is_told():
    blob = phantom_draw.Blob((0.0, 0.0, 0.0), (1.0, 1.0, 5.0), long_axis=(1.0, 0.0, 0.0))
    distance = phantom_render._blob_distance(at((4, 0, 0), (0, 4, 0)), blob).ravel()
    assert distance[0] < 0 < distance[1]


# ---- the files -------------------------------------------------------------


def test_preparing_again_writes_the_same_bytes(prepared, tmp_path):
    phantom.prepare(tmp_path, cases={"labeled": 1, "unlabeled": 1, "test": 1})
    first, second = ({p.relative_to(t): p.read_bytes() for p in t.rglob("*.*")} for t in (prepared, tmp_path))
    assert first == second and len(first) == 7


def test_a_case_is_the_same_however_many_are_made(prepared, tmp_path):
    phantom.prepare(tmp_path, cases={"labeled": 1})
    name = "images/phantom_000.nii.gz"
    assert (tmp_path / name).read_bytes() == (prepared / name).read_bytes()


def test_files_hold_what_was_rendered_with_one_affine_in_mm(prepared, rendered):
    image, label = (nib.load(prepared / folder / "phantom_001.nii.gz") for folder in ("images", "labels"))
    np.testing.assert_array_equal(np.asarray(image.dataobj), rendered[1][0])
    np.testing.assert_array_equal(np.asarray(label.dataobj), rendered[1][1])
    np.testing.assert_array_equal(image.affine, label.affine)
    np.testing.assert_allclose(image.affine, rendered[1][2], atol=1e-4)
    np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
    assert image.header.get_xyzt_units()[0] == "mm" and int(image.header["sform_code"]) == 1


def test_nothing_half_written_is_left_behind(prepared):
    assert not [path for path in prepared.rglob("*") if path.name.startswith(".")]


def test_the_data_list_names_each_case_once_and_hides_the_unlabeled_truth(prepared):
    content = json.loads((prepared / "data_list.json").read_text())
    assert content["labels"] == {"0": "background", "1": "left atrium"}
    assert content["modality"] == {"0": "LGE-MR (phantom)"}
    subjects = [case["subject"] for section in phantom.CASES for case in content[section]]
    assert subjects == ["phantom_000", "phantom_001", "phantom_002"]
    assert content["unlabeled"][0].get("label") is None and content["validation"] == []
    for section in phantom.CASES:
        assert all((prepared / case["image"]).is_file() for case in content[section])


def test_the_data_list_says_that_it_is_a_drawing(prepared):
    assert "not anatomy" in json.loads((prepared / "data_list.json").read_text())["description"]


def test_the_usual_numbers_are_4_labeled_16_unlabeled_4_validation_8_test():
    assert dict(phantom.CASES) == {"labeled": 4, "unlabeled": 16, "validation": 4, "test": 8}


def test_progress_counts_to_the_end(tmp_path):
    seen: list[tuple[int, int]] = []
    phantom.prepare(tmp_path, cases={"labeled": 1, "test": 1}, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(1, 2), (2, 2)]


@pytest.mark.parametrize("cases", [{"train": 3}, {"labeled": -1}, {}])
def test_wrong_numbers_of_cases_are_refused_before_anything_is_written(tmp_path, cases):
    with pytest.raises(InputError, match="wanted 0 or more cases"):
        phantom.prepare(tmp_path / "new", cases=cases)
    assert not (tmp_path / "new").exists()
