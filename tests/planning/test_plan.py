"""Choices together: wishes, and making things smaller until a step fits."""

import pytest
from planning_samples import CPU, GPU, fingerprint

from semi_med.errors import InputError, ResourceError
from semi_med.planning.fingerprint import Structure
from semi_med.planning.plan import Wishes, make_plan
from semi_med.planning.trial import Trial


def plan(found=None, wishes=None, machine=CPU, *, try_it=None, networks=2):
    return make_plan(found or fingerprint(), wishes or Wishes(), machine, cases=20, networks=networks, try_it=try_it)


def values(made):
    return {name: choice.value for name, choice in made.choices.items()}


def test_every_choice_has_a_reason():
    for choice in plan().choices.values():
        assert choice.reason, choice.name


def test_a_gpu_gets_larger_crops_and_more_filters_than_a_cpu():
    small, large = values(plan()), values(plan(machine=GPU))
    assert small["crop"] == [64, 64, 64] and large["crop"] == [96, 96, 96]
    assert (small["filters"], large["filters"]) == (8, 16)


def test_margins_shifts_and_strides_follow_the_crop():
    made = values(plan())
    assert made["margin"] == [8, 8, 8] and made["max_shift"] == [16, 16, 16] and made["stride"] == [32, 32, 32]


@pytest.mark.parametrize(
    ("wishes", "name", "value"),
    [
        ({"crop": (32, 48, 32)}, "crop", [32, 48, 32]),
        ({"batch": 3}, "batch", 3),
        ({"filters": 4}, "filters", 4),
        ({"iterations": 77}, "iterations", 77),
        ({"spacing": (2.0, 2.0, 2.0)}, "spacing", [2.0, 2.0, 2.0]),
        ({"dimensions": 2}, "dimensions", 2),
        ({"mirror": (0,)}, "mirror", [0]),
        ({"mirror": ()}, "mirror", []),
    ],
)
def test_a_wish_is_followed_and_named_as_the_reason(wishes, name, value):
    choice = plan(wishes=Wishes(**wishes)).choices[name]
    assert (choice.value, choice.given) == (value, True)
    assert "--" in choice.reason


def test_too_few_updates_are_made_but_not_without_a_word():
    assert "may stay empty" in plan(wishes=Wishes(iterations=299)).choices["iterations"].reason
    assert "empty" not in plan(wishes=Wishes(iterations=300)).choices["iterations"].reason


def test_resampling_can_be_switched_off():
    found = fingerprint(vary=0.5)
    assert plan(found).choices["spacing"].value is not None
    assert plan(found, Wishes(spacing=())).choices["spacing"].value is None


def test_a_cpu_sees_large_volumes_more_coarsely_unless_a_person_says_otherwise():
    found = fingerprint(
        (193, 143, 88), (0.625, 0.625, 0.625), classes=(Structure(1, "atrium", 8, 0.07, thickness=14.0),)
    )
    small, large = plan(found).choices, plan(found, machine=GPU).choices
    assert small["spacing"].value == [pytest.approx(1.05, abs=0.01)] * 3 and small["masks"].value == "probabilities"
    assert large["spacing"].value is None
    for wishes in (Wishes(spacing=()), Wishes(dimensions=2), Wishes(crop=(144, 112, 64))):
        assert plan(found, wishes).choices["spacing"].value is None
    small_crop = plan(found, Wishes(crop=(48, 48, 48))).choices["spacing"].value
    assert small_crop[0] == pytest.approx(0.625 * 2.22, abs=0.03)  # (193 * 143 * 88 / 2 / 48**3) ** (1 / 3)


def test_a_crop_of_two_numbers_means_2d():
    made = values(plan(wishes=Wishes(crop=(64, 64))))
    assert (made["dimensions"], made["levels"]) == (2, 5)


@pytest.mark.parametrize(
    ("found", "wishes", "text"),
    [
        ({}, {"crop": (30, 30, 30)}, "32,32,32"),
        ({}, {"crop": (64, 64), "dimensions": 3}, "2 or 3 dimensions"),
        ({"size": (99, 99, 1), "pictures": True}, {"dimensions": 3}, "cannot be seen in 3D"),
        ({}, {"spacing": (1.0, 1.0)}, "3 numbers were wanted"),
    ],
)
def test_a_wish_that_cannot_be_had_is_refused(found, wishes, text):
    with pytest.raises(InputError, match=text):
        plan(fingerprint(**found), Wishes(**wishes))


# ---- fitting -------------------------------------------------------------------------------------------------------


def takes(gigabytes_per_megavoxel):
    """A step whose memory grows with voxels, batch and filters; and the list of what was tried."""
    tried = []

    def try_it(choices):
        made = {name: choice.value for name, choice in choices.items()}
        voxels = made["crop"][0] * made["crop"][1] * made["crop"][2]
        tried.append((made["crop"], made["batch"], made["filters"]))
        gigabytes = gigabytes_per_megavoxel * voxels * made["batch"] * made["filters"] / 16e6
        return Trial(gigabytes, 2.0, 1.0)

    return try_it, tried


def test_a_step_that_fits_is_tried_once():
    try_it, tried = takes(1.0)
    made = plan(try_it=try_it)
    assert len(tried) == 1 and made.tried == ()
    assert made.trial == Trial(1.0 * 64**3 / 1e6, 2.0, 1.0)


def test_the_crop_shrinks_until_the_step_fits_and_what_did_not_fit_is_told():
    try_it, tried = takes(100.0)
    made = plan(try_it=try_it)
    assert made.trial.gigabytes <= CPU.memory_gb
    assert len(tried) > 1 and len(made.tried) == len(tried) - 1
    assert "crop 64 x 64 x 64, batch 2, 8 filters: 26.2 GB" in made.tried[0]


def test_a_large_batch_is_halved_first():
    sizes = []

    def never(choices):
        sizes.append((choices["batch"].value, choices["crop"].value))
        return Trial(None, None, words="it does not fit")

    with pytest.raises(ResourceError):
        plan(fingerprint((256, 256, 1), pictures=True), machine=GPU, try_it=never)
    assert sizes[:4] == [(12, [256, 256]), (6, [256, 256]), (3, [256, 256]), (2, [256, 256])]
    assert sizes[4][1][0] < 256


def test_what_a_person_asked_for_is_not_made_smaller():
    try_it, _ = takes(1000.0)
    with pytest.raises(ResourceError, match="no training step fits"):
        plan(wishes=Wishes(crop=(64, 64, 64), batch=2, filters=8), try_it=try_it)


def test_without_a_trial_nothing_is_promised():
    assert plan().trial is None


def test_on_a_cpu_the_updates_follow_the_time_that_a_step_takes_alone():
    made = plan(try_it=lambda choices: Trial(1.0, 9.0, 3.0))
    assert made.choices["iterations"].value == 1200


def test_a_step_that_is_far_too_large_by_the_rule_of_thumb_is_not_even_tried():
    tried = []
    machine = type(CPU)("cpu", 0.2, "a small one")
    with pytest.raises(ResourceError):
        plan(machine=machine, wishes=Wishes(crop=(128, 128, 128), batch=2, filters=32), try_it=tried.append)
    assert tried == []
