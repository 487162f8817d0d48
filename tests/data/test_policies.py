from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from semi_med.data.operations import AMOUNTS, Step, geometry, operations, photometric
from semi_med.data.policies import CTAugment, RandAugment
from semi_med.errors import InputError
from semi_med.ops import affine, seen, warp

SHAPES = {2: (7, 10), 3: (6, 9, 5)}
dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])
every_policy = pytest.mark.parametrize("policy", [RandAugment, CTAugment])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def image_of(dimensions, *, channels=2, batch_size=1, seed=0):
    """Off the range of 0 to 1, as normalised images are, each channel on a range of its own."""
    image = torch.randn(batch_size, channels, *SHAPES[dimensions], generator=generator(seed))
    return image * (1 + torch.arange(channels).view(1, -1, *[1] * dimensions)) - 0.7


def unit(image):
    """Each channel from 0 to 1, in double precision."""
    flat = image.double().flatten(2)
    return (flat - flat.amin(2, keepdim=True)) / (flat.amax(2, keepdim=True) - flat.amin(2, keepdim=True))


def changed(image, name, amount, **how):
    """The picture from 0 to 1 after one operation, channels by voxels."""
    low, high = image.flatten(2).amin(2, keepdim=True), image.flatten(2).amax(2, keepdim=True)
    out = photometric(image, [Step(name, amount, **how)])
    return ((out.flatten(2) - low) / (high - low)).double()


# --- The operations by hand -------------------------------------------------------------------------------------------


@dimensions_2_and_3
@pytest.mark.parametrize(
    ("name", "amount", "expected"),
    [
        ("brightness", 0.5, lambda u: u * 0.5),
        ("brightness", 1.5, lambda u: (u * 1.5).clamp(max=1)),
        ("contrast", 0.3, lambda u: u.mean(2, keepdim=True) + 0.3 * (u - u.mean(2, keepdim=True))),
        ("contrast", 1.9, lambda u: (u.mean(2, keepdim=True) + 1.9 * (u - u.mean(2, keepdim=True))).clamp(0, 1)),
        ("color", 0.2, lambda u: u.mean(1, keepdim=True) + 0.2 * (u - u.mean(1, keepdim=True))),
        ("invert", 1.0, lambda u: 1 - u),
        ("invert", 0.25, lambda u: u + 0.25 * (1 - 2 * u)),
        ("solarize", 0.6, lambda u: torch.where(u >= 0.6, 1 - u, u)),
        ("solarize", 0.0, lambda u: 1 - u),
        ("posterize", 2.0, lambda u: (u * 4).floor().clamp(max=3) / 3),
        ("posterize", 1.0, lambda u: (u >= 0.5).double()),
    ],
)
def test_a_pointwise_operation_is_what_its_name_says_on_the_range_of_each_channel(dimensions, name, amount, expected):
    image = image_of(dimensions)
    assert torch.allclose(changed(image, name, amount), expected(unit(image)), atol=1e-5)


@dimensions_2_and_3
def test_an_equalized_image_is_ranked_by_brightness(dimensions):
    image = image_of(dimensions)
    out = changed(image, "equalize", 1.0)
    bins = (unit(image) * 255).round()
    for c in range(2):
        below = np.array([(bins[0, c] <= b).sum().item() for b in bins[0, c]])
        first = (bins[0, c] == 0).sum().item()
        np.testing.assert_allclose(out[0, c].numpy(), (below - first) / (bins.shape[2] - first), atol=1e-5)


def test_autocontrast_cuts_the_first_and_the_last_percent():
    values = torch.linspace(0.2, 0.8, 98)
    image = torch.cat([torch.tensor([0.0]), values, torch.tensor([1.0])]).reshape(1, 1, 10, 10)
    out = changed(image, "autocontrast", 1.0)[0, 0]
    expected = ((image.flatten() - 0.0) / 1).double()
    low, high = 0.0, round(0.8 * 255) / 255
    assert torch.allclose(out, ((expected - low) / (high - low)).clamp(0, 1), atol=0.01)


@dimensions_2_and_3
def test_smooth_blur_and_sharpness_are_mixtures_with_a_blurred_image(dimensions):
    image = image_of(dimensions, channels=1)
    picture = unit(image).reshape(SHAPES[dimensions]).numpy()
    one, two = (
        torch.from_numpy(ndimage.gaussian_filter(picture, s, radius=3 * s, mode="nearest")).flatten() for s in (1, 2)
    )
    u = unit(image)[0, 0]
    for name, amount, expected in (
        ("smooth", 0.4, 0.6 * u + 0.4 * one),
        ("blur", 1.0, two),
        ("sharpness", 0.1, one + 0.1 * (u - one)),
        ("sharpness", 1.9, (one + 1.9 * (u - one)).clamp(0, 1)),
    ):
        assert torch.allclose(changed(image, name, amount)[0, 0], expected, atol=1e-5)


@dimensions_2_and_3
def test_a_cutout_is_a_grey_box_of_its_share_inside_the_image(dimensions):
    shape = (20, 30, 10)[:dimensions]
    image = torch.rand(1, 1, *shape, generator=generator()) * 0.4
    image.view(-1)[0], image.view(-1)[-1] = 0.0, 0.4
    for place in ((0.0,) * dimensions, (1.0,) * dimensions, (0.3, 0.6, 0.5)[:dimensions]):
        out = photometric(image, [Step("cutout", 0.25, place=place)])
        cut = torch.isclose(out, torch.tensor(0.2)) & (out != image)
        side = 0.25 ** (1 / dimensions)
        sides = [round(side * s) for s in shape]
        assert abs(int(cut.sum()) - int(np.prod(sides))) <= 2  # but for voxels that were grey before
        corner = tuple(round(p * (s - length)) for p, s, length in zip(place, shape, sides, strict=True))
        assert [int(where.min()) for where in cut[0, 0].nonzero(as_tuple=True)] == list(corner)


@dimensions_2_and_3
@pytest.mark.parametrize("name", [name for name in AMOUNTS if name not in ("rotate", "shear", "translate", "rescale")])
def test_the_amount_that_does_nothing_does_nothing(dimensions, name):
    image = image_of(dimensions)
    none = AMOUNTS[name].none
    out = photometric(image, [Step(name, none, place=(0.5,) * dimensions)])
    tolerance = 0.1 if name == "posterize" else 1e-5  # 8 bits are 256 steps of the range
    assert torch.allclose(out, image, atol=tolerance)


@dimensions_2_and_3
@pytest.mark.parametrize("name", [name for name in AMOUNTS if name not in ("rotate", "shear", "translate", "rescale")])
def test_every_operation_stays_in_the_range_of_the_channel_and_takes_a_constant_image(dimensions, name):
    image = image_of(dimensions)
    axes = tuple(range(2, image.dim()))
    for amount in (AMOUNTS[name].low, AMOUNTS[name].high):
        step = Step(name, amount, place=(0.5,) * dimensions)
        out = photometric(image, [step])
        assert (out >= image.amin(axes, True) - 1e-5).all()
        assert (out <= image.amax(axes, True) + 1e-5).all()
        assert torch.allclose(photometric(torch.full_like(image, -1.5), [step]), torch.tensor(-1.5), atol=1e-5)


@dimensions_2_and_3
def test_geometric_operations_are_their_matrices_in_their_order(dimensions):
    shape = SHAPES[dimensions]
    amount = torch.tensor([20.0])
    plane, axes = (0, dimensions - 1), (1, 0)
    offset = torch.zeros(1, dimensions)
    offset[0, 1] = -0.1 * shape[1]
    expected = affine.compose(
        affine.rotation(amount, plane, shape),
        affine.shear(amount / 2, axes, shape),
        affine.translation(offset),
        affine.magnification(torch.full((1, dimensions), 1.2), shape),
    )
    steps = [
        Step("rotate", 20.0, plane),
        Step("contrast", 0.5),
        Step("shear_1", 10.0, axes),
        Step("translate_1", -0.1, (1, 1)),
        Step("rescale", 1.2),
    ]
    assert torch.allclose(geometry(steps, shape), expected)
    assert torch.equal(photometric(image_of(dimensions), steps), photometric(image_of(dimensions), steps[1:2]))


def test_operations_without_a_meaning_are_left_out():
    assert "color" not in operations(2)
    assert "color" in operations(2, colors=True)
    assert [name for name in operations(3) if name.startswith(("shear", "translate"))] == [
        *("shear_0", "shear_1", "shear_2", "translate_0", "translate_1", "translate_2")
    ]
    assert [name for name in operations(2) if name.startswith("shear")] == ["shear_0", "shear_1"]
    with pytest.raises(ValueError, match="there is no operation shera; there are identity"):
        operations(2, only=["shera"])
    with pytest.raises(ValueError, match="none of the operations color has a meaning"):
        operations(2, only=["color"])


# --- What both policies keep ------------------------------------------------------------------------------------------


@dimensions_2_and_3
@every_policy
def test_each_image_has_draws_of_its_own_and_the_same_state_gives_the_same(policy, dimensions):
    drawn = policy().draw(6, dimensions, generator(3))
    assert drawn == policy().draw(6, dimensions, generator(3))
    assert drawn != policy().draw(6, dimensions, generator(4))
    assert len({str(steps) for steps in drawn}) == 6
    assert all(len(steps) == 3 and steps[-1].name == "cutout" for steps in drawn)


@dimensions_2_and_3
@every_policy
def test_an_image_is_changed_alike_whatever_else_is_in_the_batch(policy, dimensions):
    image = image_of(dimensions, batch_size=5)
    before = image.clone()
    drawn = policy(number=3).draw(5, dimensions, generator())
    together = policy().photometric(image, drawn)
    assert torch.equal(image, before)
    assert not torch.equal(together, image)
    for b in range(5):
        assert torch.equal(policy().photometric(image[b : b + 1], drawn[b : b + 1])[0], together[b])


@dimensions_2_and_3
@every_policy
def test_drawn_geometry_can_be_undone(policy, dimensions):
    shape = (17, 21, 15)[:dimensions]
    lines = torch.meshgrid(*(torch.arange(float(s)) for s in shape), indexing="ij")
    image = torch.stack(lines).mul(0.3).sin().sum(0).expand(8, 1, *shape)
    only = ["rotate", "shear", "translate"]
    chosen = policy(only=only, cutout=None)
    matrix = chosen.matrix(chosen.draw(8, dimensions, generator()), shape)
    assert len({str(m.tolist()) for m in matrix}) > 5
    back = affine.inverse(matrix)
    moved = warp(image, matrix, nearest=False)
    sure = seen(back, shape, linear=True)
    sure &= warp(warp(torch.ones_like(moved), matrix, nearest=False), back, nearest=False) > 0.999
    error = (warp(moved, back, nearest=False) - image).abs()
    assert sure.float().mean() > 0.3
    assert error[sure].max() < 0.2
    assert (moved - image).abs().mean() > 0.2


@every_policy
def test_every_operation_of_the_pool_is_drawn(policy):
    names = {step.name for steps in policy().draw(400, 3, generator()) for step in steps}
    assert names == {*policy().pool(3), "cutout"}


@every_policy
def test_geometry_can_be_left_out(policy):
    chosen = policy(geometric=False)
    assert not {"rotate", "shear_0", "translate_0", "rescale"} & set(chosen.pool(2))
    matrix = chosen.matrix(chosen.draw(4, 2, generator()), (5, 6))
    assert torch.equal(matrix, affine.identity(4, 2))


@every_policy
@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"only": ["rotat"]}, "there is no operation rotat"),
        ({"ranges": {"rotat": (0, 1)}}, "ranges names no operation with rotat"),
        ({"number": -1}, "number is a count of operations of at least 0, not -1"),
    ],
)
def test_settings_that_mean_nothing_are_refused(policy, settings, text):
    with pytest.raises(ValueError, match=text):
        policy(**settings)


# --- RandAugment ------------------------------------------------------------------------------------------------------


def amounts(policy, name, *, draws=300):
    steps = [step for steps in policy.draw(draws, 2, generator()) for step in steps]
    return {round(step.amount, 4) for step in steps if step.name == name}


def test_the_magnitudes_at_ten_are_the_published_ones():
    policy = RandAugment(2, magnitude=10)
    assert amounts(policy, "rotate") == {-30, 30}
    assert amounts(policy, "shear_0") == {-17, 17}
    assert amounts(policy, "translate_1") == {-0.15, 0.15}
    assert amounts(policy, "contrast") == {0.1, 1.9}
    assert amounts(policy, "sharpness") == {0.1, 1.9}
    assert amounts(policy, "posterize") == {4}
    assert amounts(policy, "solarize") == {0}
    assert amounts(policy, "invert") == {1}
    shares = amounts(policy, "cutout")
    assert 0.1 <= min(shares) < 0.12
    assert 0.28 < max(shares) <= 0.3


def test_a_smaller_magnitude_is_nearer_to_nothing():
    policy = RandAugment(2, magnitude=4)
    assert amounts(policy, "rotate") == {-12, 12}
    assert amounts(policy, "brightness") == {0.64, 1.36}
    assert amounts(policy, "solarize") == {0.6}
    none = RandAugment(2, magnitude=0)
    assert amounts(none, "rotate") == {0}
    assert amounts(none, "posterize") == {8}


def test_ranges_can_be_set_and_magnitudes_drawn():
    assert amounts(RandAugment(2, ranges={"rotate": (-15, 15)}), "rotate") == {-15, 15}
    drawn = amounts(RandAugment(2, random_magnitude=True), "rotate")
    assert len(drawn) > 10
    assert max(map(abs, drawn)) <= 30
    with pytest.raises(ValueError, match="magnitude is a number between 0 and 10, not 11"):
        RandAugment(2, magnitude=11)


# --- CTAugment --------------------------------------------------------------------------------------------------------


def test_bins_are_drawn_by_their_rates_and_those_far_below_the_best_never():
    policy = CTAugment(1, only=["contrast"], bins=4, cutout=None)
    policy.rates["contrast"] = torch.tensor([0.5, 0.4, 0.39, 0.45], dtype=torch.float64)
    assert torch.equal(policy.weights("contrast"), torch.tensor([1.0, 0.8, 0.0, 0.9], dtype=torch.float64))
    bins = [steps[0].bin for steps in policy.draw(2000, 2, generator())]
    assert np.bincount(bins, minlength=4) / 2000 == pytest.approx([1 / 2.7, 0.8 / 2.7, 0, 0.9 / 2.7], abs=0.04)
    probed = [steps[0].bin for steps in policy.draw_probe(2000, 2, generator())]
    assert np.bincount(probed, minlength=4) / 2000 == pytest.approx([0.25] * 4, abs=0.04)


def test_an_amount_is_that_of_its_bin():
    policy = CTAugment(1, only=["rotate"], cutout=None)
    for steps in policy.draw(100, 2, generator()):
        assert steps[0].amount == pytest.approx(-45 + 90 * steps[0].bin / 16)


def test_only_the_bins_of_a_probe_learn_and_by_the_equation():
    policy = CTAugment(2, decay=0.9)
    drawn = policy.draw_probe(3, 3, generator())
    used = policy.used(drawn)
    assert used.shape == (3, 2, 2)
    agreement = torch.tensor([0.0, 0.5, float("nan")])
    expected = {name: rates.clone() for name, rates in policy.rates.items()}
    for steps, value in zip(drawn[:2], (0.0, 0.5), strict=True):
        for step in steps[:2]:
            expected[step.name][step.bin] = 0.9 * expected[step.name][step.bin] + 0.1 * value
    policy.learn(used, agreement)
    assert policy.rates.keys() == expected.keys()
    assert all(torch.allclose(policy.rates[name], rates) for name, rates in expected.items())
    assert any((rates < 1).any() for rates in policy.rates.values())


def test_rates_are_kept_and_go_on_and_those_of_another_policy_are_refused():
    policy = CTAugment(2)
    policy.learn(policy.used(policy.draw_probe(4, 2, generator())), torch.zeros(4))
    other = CTAugment(2)
    other.load_state_dict(policy.state_dict())
    assert all(torch.equal(other.rates[name], rates) for name, rates in policy.rates.items())
    kept = policy.state_dict()
    policy.learn(policy.used(policy.draw_probe(4, 2, generator(1))), torch.zeros(4))
    assert any(not torch.equal(kept[name], rates) for name, rates in policy.rates.items())
    with pytest.raises(InputError, match="this policy has"):
        CTAugment(2, bins=5).load_state_dict(kept)
