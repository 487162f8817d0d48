"""One test a rule, on fingerprints made by hand."""

import pytest
from planning_samples import fingerprint

from semi_med.planning import rules
from semi_med.planning.fingerprint import Spread, Structure

TWO = (Structure(1, "left", 8, 0.05), Structure(2, "right", 8, 0.05))


# ---- 2D or 3D ------------------------------------------------------------------------------------------------------


def test_pictures_are_seen_in_2d():
    assert rules.dimensions(fingerprint((512, 512, 1), pictures=True))[0] == 2


def test_volumes_of_nearly_equal_spacing_are_seen_in_3d():
    assert rules.dimensions(fingerprint((192, 142, 88), (1, 1, 2.5)))[0] == 3


def test_tiny_volumes_are_seen_in_3d():
    assert rules.dimensions(fingerprint((35, 50, 36)))[0] == 3


def test_thick_and_few_slices_are_seen_in_2d_with_both_ratios_in_the_reason():
    value, reason = rules.dimensions(fingerprint((512, 512, 60), (0.8, 0.8, 5)))
    assert value == 2
    assert "5 mm thick, 6.2 times the pixels, and 8.5 times fewer" in reason


def test_thick_slices_that_are_not_fewer_stay_3d():
    assert rules.dimensions(fingerprint((128, 128, 100), (0.8, 0.8, 5)))[0] == 3


def test_fewer_slices_than_three_levels_need_are_seen_in_2d():
    assert rules.dimensions(fingerprint((64, 64, 15)))[0] == 2
    assert rules.dimensions(fingerprint((64, 64, 16)))[0] == 3


# ---- axes and spacing ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spacing", "axes", "plane"),
    [((5, 1, 1), "ASR", "sagittal"), ((1, 5, 1), "RSA", "coronal"), ((1, 1, 5), "RAS", "axial")],
)
def test_in_2d_the_thickest_axis_comes_last(spacing, axes, plane):
    found = fingerprint((100, 100, 100), spacing)
    value, reason = rules.axes(found, 2)
    assert value == axes and plane in reason
    assert rules.along(found.median_spacing, value)[2] == 5


@pytest.mark.parametrize(
    ("size", "spacing", "axes"),
    [
        ((256, 256, 1), (1.4, 1.4, 1.0), "RAS"),
        ((1, 256, 256), (1.0, 1.4, 1.4), "ASR"),
        ((64, 64, 12), (1, 1, 0.9), "RAS"),
        ((200, 12, 200), (4, 1, 1), "RSA"),
        ((120, 100, 120), (1.0, 1.0, 1.2), "RSA"),
        ((96, 96, 96), (1, 1, 1), "RAS"),
    ],
)
def test_few_slices_and_slices_of_like_spacing_are_cut_across_the_fewest_voxels(size, spacing, axes):
    found = fingerprint(size, spacing)
    assert rules.axes(found, 2)[0] == axes
    assert min(rules.along(size, axes)[:2]) >= sorted(size)[1]


def test_sides_are_called_as_the_axes_run():
    assert rules.sides("ASR", 2, pictures=False) == ("back-front", "feet-head")
    assert rules.sides("RAS", 3, pictures=False)[2] == "feet-head"


def test_in_3d_axes_are_right_anterior_superior():
    assert rules.axes(fingerprint(spacing=(5, 1, 1)), 3)[0] == "RAS"


def test_equal_spacings_are_not_resampled_also_where_they_are_anisotropic():
    assert rules.target_spacing(fingerprint(spacing=(1, 1, 2.5)), 3, "RAS")[0] is None


def test_different_spacings_are_resampled_to_their_median():
    value, reason = rules.target_spacing(fingerprint(spacing=(0.8, 0.8, 1.5), vary=0.2), 3, "RAS")
    assert value == [0.8, 0.8, 1.5]
    assert "differ by 20%" in reason


def test_a_very_anisotropic_axis_gets_its_10th_percentile_in_3d():
    found = fingerprint((400, 400, 60), (0.8, 0.8, 5), vary=0.4)
    assert rules.target_spacing(found, 3, "RAS")[0] == [0.8, 0.8, 4.0]


def test_in_2d_slices_stay_where_they_are():
    assert rules.target_spacing(fingerprint(spacing=(0.8, 0.8, 5), vary=0.4), 2, "RAS")[0] == [0.8, 0.8, -1]


def test_in_2d_a_thickness_that_varies_alone_changes_nothing():
    spacing = (Spread(1, 1, 1), Spread(1, 1, 1), Spread(3, 5, 8))
    assert rules.target_spacing(fingerprint(spacing=(1, 1, 5), **{}), 2, "RAS")[0] is None
    assert rules.target_spacing(fingerprint_with(spacing), 2, "RAS")[0] is None
    assert rules.target_spacing(fingerprint_with(spacing), 3, "RAS")[0] is not None


def fingerprint_with(spacing):
    from dataclasses import replace

    return replace(fingerprint(), spacing=spacing)


def test_pictures_are_not_resampled():
    assert rules.target_spacing(fingerprint(pictures=True, vary=0.5), 2, "RAS")[0] is None


def test_the_size_after_resampling_is_that_of_the_median_case():
    found = fingerprint((100, 80, 60), (1, 2, 3))
    assert rules.resampled_size(found, "RAS", [2, 2, -1]) == [50, 80, 60]
    assert rules.resampled_size(found, "ASR", None) == [80, 60, 100]


# ---- intensities ---------------------------------------------------------------------------------------------------


def test_ct_is_cut_and_standardised_with_numbers_of_the_structures():
    value, reason = rules.normalisation(fingerprint(ct=True))
    assert value == {"kind": "ct", "low": -50.0, "high": 200.0, "mean": 80.0, "sd": 40.0}
    assert "-50 to 200" in reason


def test_other_scans_are_standardised_one_by_one():
    assert rules.normalisation(fingerprint())[0] == {"kind": "each"}


def test_scans_that_are_mostly_zero_are_standardised_over_the_rest():
    assert rules.normalisation(fingerprint(zeros=0.26))[0] == {"kind": "nonzero"}
    assert rules.normalisation(fingerprint(zeros=0.25))[0] == {"kind": "each"}


def test_black_in_a_picture_is_a_colour():
    assert rules.normalisation(fingerprint(zeros=0.6, pictures=True))[0] == {"kind": "each"}


# ---- crop and network ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "budget", "crop", "levels"),
    [
        ((35, 50, 36), 64**3, [32, 48, 32], 4),  # as the recipe of the hippocampus has it
        ((112, 112, 80), 10**9, [112, 112, 80], 5),
        ((192, 142, 88), 112 * 112 * 80, [144, 96, 64], 5),
        ((30, 30, 18), 10**9, [28, 28, 16], 3),
        ((9, 9, 9), 10**9, [8, 8, 8], 2),
        ((3, 9, 9), 10**9, [3, 9, 9], 1),
    ],
)
def test_the_crop_starts_at_the_median_size_and_levels_follow_from_it(size, budget, crop, levels):
    assert rules.crop(size, 3, budget) == (crop, levels)


def test_the_crop_of_a_picture_has_two_sizes_and_up_to_six_levels():
    assert rules.crop((999, 960, 1), 2, 256**2) == ([256, 256], 6)


@pytest.mark.parametrize("size", [(35, 50, 36), (512, 512, 300), (17, 200, 90), (64, 64, 16), (100, 30, 31)])
@pytest.mark.parametrize("budget", [16**3, 64**3, 128**3])
def test_every_crop_can_be_halved_as_often_as_the_network_does_and_is_within_the_budget(size, budget):
    crop, levels = rules.crop(size, 3, budget)
    step = 2 ** (levels - 1)
    assert all(n % step == 0 and n >= min(4 * step, n) for n in crop)
    assert min(crop) >= 4 * step or levels == 1
    assert crop[0] * crop[1] * crop[2] <= budget


def test_the_reason_tells_whether_the_crop_was_cut():
    assert "cut to at most 1,000" in rules.crop_reason([8, 8, 8], [20, 20, 20], 2, 1000)
    assert "cut" not in rules.crop_reason([16, 16, 16], [20, 20, 20], 2, 10_000)


# ---- augmentation --------------------------------------------------------------------------------------------------


def test_scans_of_people_are_never_mirrored_by_themselves():
    assert rules.mirror_axes(fingerprint())[0] == []
    assert rules.mirror_axes(fingerprint(classes=TWO))[0] == []


def test_pictures_of_one_structure_are_mirrored_and_of_several_are_not():
    assert rules.mirror_axes(fingerprint(pictures=True))[0] == [0, 1]
    assert rules.mirror_axes(fingerprint(pictures=True, classes=TWO))[0] == []


def test_anisotropic_volumes_are_turned_little():
    assert rules.rotation((1, 1, 1.5))[0] == 15
    assert rules.rotation((1, 1, 1.6))[0] == 5
    assert rules.rotation((1, 1))[0] == 15


def test_hounsfield_units_are_changed_less():
    mild, usual = rules.strength(fingerprint(ct=True))[0], rules.strength(fingerprint())[0]
    assert mild["gain"] < usual["gain"] and mild["noise"] < usual["noise"]


# ---- schedule ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cases", "dims", "updates"), [(10, 3, 6000), (80, 3, 12000), (500, 3, 30000), (200, 2, 10000), (81, 3, 13000)]
)
def test_updates_follow_the_number_of_cases(cases, dims, updates):
    assert rules.most_iterations(cases, dims) == updates


def test_a_cpu_gets_what_an_hour_holds_and_the_reason_says_what_a_gpu_would():
    value, reason = rules.iterations(10, 3, device="cpu", seconds=3.0)
    assert value == 1200
    assert "6,000" in reason
    assert rules.iterations(10, 3, device="cpu", seconds=0.1)[0] == 6000
    few, why = rules.iterations(10, 3, device="cpu", seconds=60.0)
    assert few == 1000 and "more than an hour" in why
    assert rules.iterations(10, 3, device="cuda", seconds=60.0)[0] == 6000
    assert rules.iterations(10, 3, device="cpu", seconds=None)[0] == 6000


def test_where_a_crop_sees_little_of_a_volume_a_cpu_gets_coarser_voxels():
    atrium = fingerprint(classes=(Structure(1, "atrium", 8, 0.07, thickness=15.0),))
    target, reason = rules.coarser(atrium, (193, 143, 88), (0.625, 0.625, 0.625), budget=64**3)
    # half of the volume in 262,144 voxels: (193 * 143 * 88 / 2 / 262144) ** (1 / 3) = 1.67 times the voxels
    assert target == [pytest.approx(0.625 * 1.67, abs=0.02)] * 3
    assert "a crop sees 5" in reason and "not 11%" in reason and "15 mm, keeps 14 voxels" in reason
    assert rules.coarser(atrium, (60, 60, 60), (1, 1, 1), budget=64**3) is None
    assert rules.coarser(atrium, (90, 80, 80), (1, 1, 1), budget=64**3) is None  # 1.03 times are not worth it


def test_pictures_on_a_cpu_become_coarser_in_their_plane_but_vessels_stay():
    heart = fingerprint((256, 256, 1), pictures=True, classes=(Structure(1, "ventricle", 8, 0.02, thickness=20.0),))
    target, reason = rules.coarser(heart, (256, 256), (1, 1), budget=128**2)
    # half of the picture in 128 x 128 pixels
    assert target == [pytest.approx(2**0.5, abs=0.02)] * 2 + [-1]
    assert "20 pixels, keeps 14 voxels" in reason and "of a slice so" in reason
    vessels = fingerprint((999, 960, 1), pictures=True, classes=(Structure(1, "vessel", 8, 0.07, thickness=9.0),))
    assert rules.coarser(vessels, (999, 960), (1, 1), budget=128**2) is None


def test_coarser_voxels_leave_the_thinnest_structure_and_the_thick_axis():
    two = (Structure(1, "organ", 8, 0.05, thickness=30.0), Structure(2, "vessel", 8, 0.01, thickness=4.0))
    target, _ = rules.coarser(fingerprint(classes=two), (400, 400, 120), (0.7, 0.7, 2.5), budget=64**3)
    assert target == [pytest.approx(1.0, abs=0.02)] * 2 + [2.5]
    thin = (Structure(1, "vessel", 8, 0.01, thickness=3.0),)
    assert rules.coarser(fingerprint(classes=thin), (400, 400, 400), (1, 1, 1), budget=64**3) is None
    unknown = (Structure(1, "organ", 8, 0.05),)
    assert rules.coarser(fingerprint(classes=unknown), (400, 400, 400), (1, 1, 1), budget=64**3) is None


@pytest.mark.parametrize(
    ("changed", "labeled", "kept", "said"),
    [
        ({}, 8, True, "in all 8 labels"),
        ({}, 4, False, "4 labels are too few"),
        ({"whole": 7}, 8, False, "in several parts"),
        ({"thickness": 3.0}, 8, False, "thin structures break"),
        ({"thickness": None}, 8, False, "thin structures break"),
    ],
)
def test_masks_keep_the_largest_part_where_all_labels_have_one_and_it_is_thick(changed, labeled, kept, said):
    one = Structure(1, "atrium", labeled, 0.07, **{"whole": labeled, "thickness": 15.0, **changed})
    value, reason = rules.largest_part(fingerprint(labeled=labeled, classes=(one,)), (1.0, 1.0, 1.0))
    assert value == kept and said in reason
    assert not rules.largest_part(fingerprint(labeled=labeled, classes=(one,)), (1.0, 1.0))[0]


def test_small_structures_are_those_that_fill_less_than_a_tenth_together():
    one, two = Structure(1, "cavity", 4, 0.03), Structure(2, "wall", 4, 0.08)
    assert rules.small_structures(fingerprint(classes=(one,)))[0]
    assert not rules.small_structures(fingerprint(classes=(one, two)))[0]


def test_few_updates_learn_faster():
    assert rules.learning_rate(2999)[0] == 0.002
    assert rules.learning_rate(3000)[0] == 0.001


# ---- memory and sections -------------------------------------------------------------------------------------------


def test_cases_that_fill_the_memory_are_kept_on_disk():
    size = (128, 128, 64)  # 2**20 voxels: 3 MiB a case
    assert rules.cache(100, size, 1, memory_gb=1)[0] is False
    assert rules.cache(200, size, 1, memory_gb=1)[0] is True


def test_the_rule_of_thumb_gives_what_was_measured():
    assert rules.guessed_gb(112 * 112 * 80, filters=16, crops=4, networks=2) == pytest.approx(8.1, rel=0.1)


def test_masks_come_from_probabilities_where_they_fit():
    found = fingerprint((100, 100, 100))
    assert rules.masks(found, 3, [1, 1, 1], memory_gb=16)[0] == "probabilities"
    assert rules.masks(found, 3, [1, 1, 1], memory_gb=0.05)[0] == "classes"
    assert rules.masks(found, 3, None, memory_gb=16)[0] == "classes"


@pytest.mark.parametrize(
    ("labeled", "validation", "test"),
    [(1, 0, 0), (4, 0, 0), (5, 1, 0), (9, 1, 0), (10, 1, 2), (30, 3, 6), (100, 10, 20)],
)
def test_few_labels_are_not_held_out(labeled, validation, test):
    assert rules.held_out(labeled)[:2] == (validation, test)
