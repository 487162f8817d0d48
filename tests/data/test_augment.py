from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy import ndimage

from semi_med.data.augment import Augment, View
from semi_med.ops import affine
from semi_med.ops import warp as warp_through

SHAPES = {2: (7, 10), 3: (6, 9, 5)}
dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])
EVERYTHING = {"rotate": 20.0, "scale": (0.8, 1.2), "gain": 0.2, "offset": 0.3, "gamma": 0.4, "noise": 0.1, "blur": 1.0}


def warp(maps, linear, **how):
    """Through a linear map about the centre."""
    return warp_through(maps, affine.about_centre(linear, maps.shape[2:]), **how)


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def coordinates(shape):
    return torch.stack(torch.meshgrid(*(torch.arange(1.0, s + 1) for s in shape), indexing="ij"))


def batch_of(shape, *, size=3, seed=0):
    """A raw batch of float16 contexts whose labels are 1 where the image is positive."""
    context = torch.randn(size, 1, *shape, generator=generator(seed)).half()
    label = (context > 0).to(torch.uint8)
    return {
        "context": context,
        "label_context": label,
        "monitor_label_context": 1 - label,
        "margin": torch.arange(size * len(shape) * 2).reshape(size, len(shape), 2),
        "case": ["a"] * size,
    }


def drawn(augment, shape, *, size=3, seed=0):
    return augment.draw(size, len(shape), generator(seed))


def rotation(degrees):
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return torch.tensor([[c, -s], [s, c]])


# --- Draw, then apply -------------------------------------------------------------------------------------------------


@dimensions_2_and_3
def test_the_same_generator_state_gives_the_same_view_whatever_the_global_one_is(dimensions):
    shape = SHAPES[dimensions]
    view = View(tuple(s - 2 for s in shape), Augment(flip_axes=range(dimensions), **EVERYTHING))
    torch.manual_seed(1)
    first = view(batch_of(shape), generator(4))
    torch.manual_seed(2)
    second = view(batch_of(shape), generator(4))
    other = view(batch_of(shape), generator(5))
    assert all(torch.equal(first[key], second[key]) for key in first)
    assert not torch.equal(first["image"], other["image"])


@dimensions_2_and_3
def test_what_was_drawn_can_be_applied_again(dimensions):
    shape = SHAPES[dimensions]
    augment = Augment(flip_axes=(0,), chance=1.0, **EVERYTHING)
    draws = drawn(augment, shape)
    first, second = augment.apply(batch_of(shape), draws), augment.apply(batch_of(shape), draws)
    assert all(torch.equal(first[k], second[k]) for k in ("context", "label_context"))


@dimensions_2_and_3
def test_the_batch_is_left_as_it_was(dimensions):
    shape = SHAPES[dimensions]
    batch, before = batch_of(shape), batch_of(shape)
    augment = Augment(flip_axes=range(dimensions), chance=1.0, **EVERYTHING)
    for seed in range(3):
        out = augment.apply(batch, drawn(augment, shape, seed=seed))
        for key in ("context", "label_context", "margin"):
            assert out[key] is not batch[key]
    assert all(batch[key] is not None and torch.equal(batch[key], before[key]) for key in before if key != "case")


@dimensions_2_and_3
def test_images_come_out_as_float32_and_labels_as_uint8(dimensions):
    shape = SHAPES[dimensions]
    out = Augment(**EVERYTHING).apply(batch_of(shape), drawn(Augment(**EVERYTHING), shape))
    kinds = {key: out[key].dtype for key in ("context", "label_context", "monitor_label_context", "margin")}
    assert kinds == {
        "context": torch.float32,
        "label_context": torch.uint8,
        "monitor_label_context": torch.uint8,
        "margin": torch.int64,
    }


@dimensions_2_and_3
def test_no_augmentation_is_exactly_nothing(dimensions):
    shape = SHAPES[dimensions]
    batch = batch_of(shape)
    out = Augment().apply(batch, drawn(Augment(), shape))
    for key in ("context", "label_context", "monitor_label_context", "margin"):
        assert torch.equal(out[key], batch[key].to(out[key].dtype))


# --- Geometry ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "shape"),
    [
        ({"flip_axes": (0, 1)}, (7, 10)),
        ({"flip_axes": (0, 1, 2)}, (6, 9, 5)),
        ({"flip_axes": (2,), "turn_planes": ((0, 1),)}, (6, 6, 5)),
        ({"turn_planes": ((1, 2),)}, (5, 6, 6)),
        ({"rotate": 30.0, "scale": (0.7, 1.4)}, (7, 10)),
        ({"rotate": 30.0, "scale": (0.7, 1.4), "flip_axes": (0, 1, 2)}, (6, 9, 5)),
    ],
)
def test_labels_and_monitor_labels_are_moved_as_the_image_is(settings, shape):
    """With integers as image and nearest neighbour also for it, image and label must stay equal in each voxel."""
    numbers = torch.randint(1, 200, (4, 1, *shape), generator=generator())
    augment = Augment(**settings)
    batch = {"context": numbers.half(), "label_context": numbers.byte(), "monitor_label_context": numbers.byte()}
    for seed in range(5):
        draws = drawn(augment, shape, size=4, seed=seed)
        out = augment.geometry(batch, draws)
        nearest = augment._geometry(batch["context"], draws, nearest=True)
        assert torch.equal(nearest.byte(), out["label_context"])
        assert torch.equal(nearest.byte(), out["monitor_label_context"])
        if draws.matrix is None:
            assert torch.equal(out["context"], nearest.float())


def test_flips_and_quarter_turns_by_hand():
    augment = Augment(flip_axes=(0,), turn_planes=((0, 1),))
    image = torch.tensor([[1, 2], [3, 4]]).reshape(1, 1, 2, 2)
    seen = {}
    for seed in range(60):
        draws = drawn(augment, (2, 2), size=1, seed=seed)
        out = augment.geometry({"context": image}, draws)["context"]
        seen[bool(draws.flips[0]), draws.turns[0][1]] = out.flatten().int().tolist()
    assert seen == {
        (False, 0): [1, 2, 3, 4],
        (False, 1): [2, 4, 1, 3],
        (False, 2): [4, 3, 2, 1],
        (False, 3): [3, 1, 4, 2],
        (True, 0): [3, 4, 1, 2],
        (True, 1): [4, 2, 3, 1],
        (True, 2): [2, 1, 4, 3],
        (True, 3): [1, 3, 2, 4],
    }


def test_each_flip_axis_is_a_fair_coin_of_its_own_and_quarters_are_equally_likely():
    draws = Augment(flip_axes=(0, 2), turn_planes=((0, 1),)).draw(4000, 3, generator())
    for axis, share in ((0, 0.5), (1, 0.0), (2, 0.5)):
        assert sum(axis in flips for flips in draws.flips) / 4000 == pytest.approx(share, abs=0.04)
    assert sum(flips == [0, 2] for flips in draws.flips) / 4000 == pytest.approx(0.25, abs=0.04)
    quarters = np.bincount([q for _, q in draws.turns], minlength=4) / 4000
    assert quarters == pytest.approx([0.25] * 4, abs=0.04)


@pytest.mark.parametrize("batch_size", [1, 2])
def test_every_image_can_be_turned_in_every_plane(batch_size):
    augment = Augment(turn_planes=((0, 1), (1, 2), (0, 2)))
    source = generator()
    seen = [set() for _ in range(batch_size)]
    for _ in range(60):
        for planes, (plane, quarters) in zip(seen, augment.draw(batch_size, 3, source).turns, strict=True):
            planes.add((plane, quarters))
    assert all(len(planes) == 12 for planes in seen)


def test_a_plane_of_unequal_axes_is_not_turned_by_a_quarter():
    augment = Augment(turn_planes=((0, 1),))
    batch = {"context": torch.zeros(8, 1, 4, 6)}
    with pytest.raises(ValueError, match=r"plane \(0, 1\) of size \(4, 6\) cannot be turned by a quarter"):
        augment.geometry(batch, drawn(augment, (4, 6), size=8))


@dimensions_2_and_3
@pytest.mark.parametrize("seed", range(4))
def test_warping_an_image_equals_scipy(dimensions, seed):
    shape = SHAPES[dimensions]
    image = torch.randn(2, 2, *shape, generator=generator(seed))
    matrix = torch.eye(dimensions) + 0.3 * torch.randn(2, dimensions, dimensions, generator=generator(seed + 50))
    warped = warp(image, matrix, nearest=False)
    centre = (np.array(shape) - 1) / 2
    for b in range(2):
        m = matrix[b].double().numpy()
        for c in range(2):
            expected = ndimage.affine_transform(
                image[b, c].double().numpy(), m, offset=centre - m @ centre, order=1, mode="grid-constant"
            )
            np.testing.assert_allclose(warped[b, c].numpy(), expected, atol=2e-5)


@dimensions_2_and_3
@pytest.mark.parametrize("seed", range(4))
def test_warping_a_label_equals_scipy(dimensions, seed):
    shape = SHAPES[dimensions]
    label = torch.randint(0, 3, (1, 1, *shape), generator=generator(seed)).byte()
    matrix = torch.eye(dimensions) + 0.3 * torch.randn(1, dimensions, dimensions, generator=generator(seed + 50))
    m, centre = matrix[0].double().numpy(), (np.array(shape) - 1) / 2
    expected = ndimage.affine_transform(
        label[0, 0].numpy(), m, offset=centre - m @ centre, order=0, mode="grid-constant"
    )
    warped = warp(label, matrix, nearest=True)
    assert warped.dtype == torch.uint8
    assert np.array_equal(warped[0, 0].numpy(), expected)


@dimensions_2_and_3
def test_the_identity_leaves_labels_as_they_are_and_images_to_rounding(dimensions):
    shape = SHAPES[dimensions]
    image = torch.randn(1, 1, *shape, generator=generator())
    label = (image > 0).byte()
    eye = torch.eye(dimensions)[None]
    assert torch.equal(warp(label, eye, nearest=True), label)
    assert torch.equal(warp(image, eye, nearest=False), image)


@pytest.mark.parametrize("shape", [(6, 6), (7, 7), (6, 6, 5), (5, 5, 5)])
def test_a_rotation_by_ninety_degrees_is_a_quarter_turn(shape):
    image = torch.randn(1, 1, *shape, generator=generator())
    matrix = torch.eye(len(shape))
    matrix[:2, :2] = rotation(90)  # output (i, j) about the centre takes the input at (-j, i)
    assert torch.allclose(warp(image, matrix[None], nearest=False), image.rot90(-1, [2, 3]), atol=1e-5)
    label = (image > 0).byte()
    assert torch.equal(warp(label, matrix[None], nearest=True), label.rot90(-1, [2, 3]))


@dimensions_2_and_3
def test_a_warp_there_and_back_keeps_the_middle(dimensions):
    shape = (17, 21, 15)[:dimensions]
    smooth = coordinates(shape).mul(0.3).sin().sum(0)[None, None]
    matrix = torch.eye(dimensions)
    matrix[:2, :2] = rotation(20)
    back = warp(warp(smooth, matrix[None], nearest=False), torch.linalg.inv(matrix)[None], nearest=False)
    middle = (slice(None), slice(None), *(slice(s // 3, 2 * s // 3) for s in shape))
    assert (back - smooth)[middle].abs().max() < 0.06
    assert smooth[middle].std() > 0.3


def test_scale_is_a_magnification():
    label = torch.zeros(1, 1, 20, 24, dtype=torch.uint8)
    label[:, :, 7:13, 9:15] = 1
    augment = Augment(scale=(2.0, 2.0))
    draws = drawn(augment, (20, 24), size=1)
    assert augment.geometry({"context": label, "label_context": label}, draws)["label_context"].sum() == 4 * 36


@dimensions_2_and_3
def test_drawn_rotations_are_rotations_up_to_the_largest_angle(dimensions):
    matrices = Augment(rotate=25.0).draw(300, dimensions, generator()).matrix
    assert torch.allclose(matrices @ matrices.transpose(1, 2), torch.eye(dimensions).expand_as(matrices), atol=1e-5)
    assert torch.allclose(torch.linalg.det(matrices), torch.ones(300), atol=1e-5)
    if dimensions == 2:
        angles = torch.rad2deg(torch.atan2(matrices[:, 1, 0], matrices[:, 0, 0]))
        assert angles.abs().max() <= 25.001
        assert angles.min() < -20
        assert angles.max() > 20
    else:
        moved = (matrices - torch.eye(3)).abs().mean(0)
        assert (moved[~torch.eye(3, dtype=torch.bool)] > 0.05).all()  # about every axis


@pytest.mark.parametrize(("chance", "low", "high"), [(0.0, 0, 0), (0.4, 0.3, 0.5), (1.0, 1, 1)])
def test_the_affine_chance_is_the_share_of_images_that_are_rotated_or_scaled(chance, low, high):
    matrices = Augment(rotate=20.0, affine_chance=chance).draw(500, 2, generator()).matrix
    share = (matrices != torch.eye(2)).flatten(1).any(1).float().mean()
    assert low <= share <= high


# --- Intensity --------------------------------------------------------------------------------------------------------


def intensities(settings, image, *, seed=0):
    augment = Augment(chance=1.0, **settings)
    draws = augment.draw(len(image), image.dim() - 2, generator(seed))
    return augment.intensity(image, draws), draws


def per_image(values, image):
    return values.view(-1, *[1] * (image.dim() - 1))


@dimensions_2_and_3
def test_gain_is_a_factor_and_nothing_else(dimensions):
    image = torch.randn(3, 2, *SHAPES[dimensions], generator=generator())
    out, draws = intensities({"gain": 0.3}, image)
    assert torch.equal(out, image * per_image(draws.gain, image))
    assert len(draws.gain.unique()) == 3


@dimensions_2_and_3
def test_offset_is_a_summand_and_nothing_else(dimensions):
    image = torch.randn(3, 2, *SHAPES[dimensions], generator=generator())
    out, draws = intensities({"offset": 0.3}, image)
    assert torch.equal(out, image + per_image(draws.offset, image))
    assert len(draws.offset.unique()) == 3


@dimensions_2_and_3
def test_gamma_is_a_power_on_the_images_own_range_which_stays(dimensions):
    image = torch.randn(3, 1, *SHAPES[dimensions], generator=generator())
    out, draws = intensities({"gamma": 0.8}, image)
    for b in range(3):
        low, high = image[b].min(), image[b].max()
        expected = ((image[b] - low) / (high - low)).double() ** math.exp(draws.log_gamma[b].item()) * (
            high - low
        ) + low
        assert torch.allclose(out[b].double(), expected, atol=2e-3)
    assert torch.allclose(out.flatten(1).amax(1), image.flatten(1).amax(1), atol=1e-5)
    assert torch.allclose(out.flatten(1).amin(1), image.flatten(1).amin(1), atol=2e-3)
    assert (out - image).abs().flatten(1).amax(1).min() > 0.01


def test_gamma_of_a_constant_image_is_that_image():
    image = torch.full((2, 1, 3, 4), -1.5)
    out, _ = intensities({"gamma": 0.8}, image)
    assert torch.allclose(out, image, atol=1e-5)


@dimensions_2_and_3
def test_noise_has_the_drawn_deviation_is_repeatable_and_differs_between_images(dimensions):
    image = torch.zeros(2, 1, *(40, 60, 30)[:dimensions])
    out, draws = intensities({"noise": 0.5}, image)
    again, _ = intensities({"noise": 0.5}, image)
    other, _ = intensities({"noise": 0.5}, image, seed=1)
    assert torch.equal(out, again)
    assert not torch.equal(out, other)
    assert out.flatten(1).std(1).tolist() == pytest.approx(draws.noise.tolist(), rel=0.05)
    assert out.flatten(1).mean(1).abs().max() < 0.05
    one, two = (part / deviation for part, deviation in zip(out, draws.noise, strict=True))
    assert abs(float((one * two).mean())) < 0.1


@dimensions_2_and_3
def test_blur_equals_scipys_gaussian_filter(dimensions):
    image = torch.randn(3, 2, *(12, 17, 9)[:dimensions], generator=generator())
    out, draws = intensities({"blur": 1.5}, image, seed=3)
    radius = max(1, int(3 * float(draws.blur.max()) + 0.5))
    for b, sigma in enumerate(draws.blur.tolist()):
        for c in range(2):
            array = image[b, c].double().numpy()
            expected = ndimage.gaussian_filter(array, sigma, mode="nearest", truncate=radius / sigma)
            np.testing.assert_allclose(out[b, c].numpy(), expected, atol=1e-5)


@pytest.mark.parametrize("kind", ["gain", "offset", "gamma", "noise", "blur"])
@dimensions_2_and_3
def test_an_image_for_which_nothing_was_drawn_is_left_to_rounding(kind, dimensions):
    image = torch.randn(40, 1, *SHAPES[dimensions], generator=generator())
    augment = Augment(**{kind: 0.5})
    draws = augment.draw(40, dimensions, generator())
    neutral = {"gain": 1.0, "gamma": 0.0}.get(kind, 0.0)
    left = getattr(draws, "log_gamma" if kind == "gamma" else kind) == neutral
    assert 8 < left.sum() < 32  # chance one half
    change = (augment.intensity(image, draws) - image).abs().flatten(1).amax(1)
    assert change[left].max() < 1e-5
    assert (change[~left] > 1e-4).float().mean() > 0.6  # a small draw of blur changes nothing


@pytest.mark.parametrize("kind", ["gain", "offset", "gamma", "noise", "blur"])
def test_draws_fill_the_range_that_was_asked_for_and_the_others_stay_off(kind):
    draws = Augment(**{kind: 0.5}, chance=1.0).draw(2000, 2, generator())
    values = {
        "gain": draws.gain - 1,
        "offset": draws.offset,
        "gamma": draws.log_gamma,
        "noise": draws.noise,
        "blur": draws.blur,
    }
    mine = values.pop(kind)
    assert mine.max() <= 0.5
    assert mine.max() > 0.48
    low = 0.0 if kind in ("noise", "blur") else -0.5
    assert mine.min() >= low - 1e-6
    assert mine.min() < low + 0.02
    assert not any(other.any() for other in values.values())


# --- Views ------------------------------------------------------------------------------------------------------------


@dimensions_2_and_3
def test_a_view_cuts_the_middle_of_the_context_and_keeps_the_context(dimensions):
    shape = SHAPES[dimensions]
    crop = tuple(s - 2 * m for s, m in zip(shape, (1, 3, 1), strict=False))
    batch = batch_of(shape)
    made = View(crop)(batch, generator())
    window = (slice(None), slice(None), *(slice(m, m + c) for m, c in zip((1, 3, 1), crop, strict=False)))
    for key, source in (("image", "context"), ("weak", "context"), ("label", "label_context")):
        assert torch.equal(made[key], batch[source][window].to(made[key].dtype))
    assert torch.equal(made["monitor_label"], batch["monitor_label_context"][window])
    assert torch.equal(made["context"], batch["context"].float())
    assert torch.equal(made["margin"], batch["margin"])
    assert set(made) == {"image", "weak", "context", "margin", "label", "monitor_label"}


def test_intensity_on_the_context_makes_all_crops_look_alike():
    view = View((5, 6), Augment(gain=0.5, offset=0.5, chance=1.0))
    made = view(batch_of((7, 10)), generator())
    assert torch.equal(made["weak"], made["image"])
    assert torch.equal(made["context"][:, :, 1:6, 2:8], made["image"])
    assert not torch.allclose(made["context"], batch_of((7, 10))["context"].float(), atol=0.01)


def test_intensity_on_the_image_leaves_the_teachers_view_and_the_context_as_they_are():
    view = View((5, 6), Augment(gain=0.5, offset=0.5, chance=1.0), intensity_on="image")
    made = view(batch_of((7, 10)), generator())
    assert torch.equal(made["context"], batch_of((7, 10))["context"].float())
    assert torch.equal(made["context"][:, :, 1:6, 2:8], made["weak"])
    draws = view.augment.draw(3, 2, generator())
    expected = made["weak"] * per_image(draws.gain, made["weak"]) + per_image(draws.offset, made["weak"])
    assert torch.equal(made["image"], expected)


def test_geometry_is_the_same_in_all_parts_of_a_view_whichever_intensity_is_asked_for():
    settings = {"flip_axes": (0, 1), "rotate": 20.0}
    context, image = (
        View((5, 6), Augment(**settings), intensity_on=on)(batch_of((7, 10)), generator(2))
        for on in ("context", "image")
    )
    assert all(torch.equal(context[key], image[key]) for key in context)


def test_an_empty_batch_stays_empty():
    assert View((4, 4))({"case": []}, generator()) == {}


def test_an_unknown_place_for_intensities_is_refused():
    with pytest.raises(ValueError, match="intensity_on must be 'context' or 'image', not 'crop'"):
        View((4, 4), intensity_on="crop")


# --- Elastic displacement, sharpness, contrast ------------------------------------------------------------------------


@dimensions_2_and_3
def test_a_displacement_of_one_voxel_takes_the_next_voxel(dimensions):
    maps = coordinates(SHAPES[dimensions])[None]
    for axis in range(dimensions):
        displacement = torch.zeros(1, dimensions, *SHAPES[dimensions])
        displacement[:, axis] = 1
        out = warp(maps, torch.eye(dimensions)[None], nearest=False, displacement=displacement)
        inside = [slice(None), slice(None), *[slice(None)] * dimensions]
        inside[axis + 2] = slice(0, -1)
        moved = [slice(None), slice(None), *[slice(None)] * dimensions]
        moved[axis + 2] = slice(1, None)
        assert torch.allclose(out[tuple(inside)], maps[tuple(moved)], atol=1e-4)


def test_the_displacement_comes_after_the_rotation():
    """Output x takes the input at R(x + d)."""
    maps = coordinates((5, 5))[None]
    displacement = torch.zeros(1, 2, 5, 5)
    displacement[:, 0] = 1
    turn = rotation(90)[None]
    out = warp(maps, turn, nearest=False, displacement=displacement)
    plain = warp(maps, turn, nearest=False)
    assert torch.allclose(out[:, :, :-1], plain[:, :, 1:], atol=1e-4)


@dimensions_2_and_3
def test_elastic_moves_image_and_label_alike_and_the_same_draw_moves_them_the_same(dimensions):
    augment = Augment(elastic=15.0, elastic_smoothing=2.0)
    shape = tuple(3 * s for s in SHAPES[dimensions])
    place = coordinates(shape)[:1].repeat(3, *[1] * (dimensions + 1))
    batch = {"context": place, "label_context": place.round().to(torch.uint8)}
    draws = drawn(augment, shape)
    out, again = augment.geometry(batch, draws), augment.geometry(batch, draws)
    assert torch.equal(out["context"], again["context"])
    inside = (slice(None), slice(None), *[slice(4, -4)] * dimensions)  # no zeros from outside
    assert float((out["context"] - out["label_context"])[inside].abs().max()) <= 0.75
    assert not torch.allclose(out["context"], place.float(), atol=0.3)


def test_a_displacement_stays_below_its_amplitude_and_is_smooth():
    augment = Augment(elastic=10.0, elastic_smoothing=3.0)
    draws = drawn(augment, (40, 50))
    field = augment._displacement(torch.zeros(3, 1, 40, 50), draws)
    assert field.shape == (3, 2, 40, 50)
    assert bool((field.flatten(1).abs().amax(1) <= draws.elastic).all())
    assert float(field.diff(dim=2).abs().max()) < 0.3 * float(field.abs().max())


def test_contrast_multiplies_the_differences_to_the_mean_of_each_channel():
    augment = Augment(contrast=0.5, chance=1.0)
    image = torch.randn(12, 2, 6, 7)
    draws = drawn(augment, (6, 7), size=12)
    out = augment.intensity(image, draws)
    for b in range(12):
        for c in range(2):
            mean = image[b, c].mean()
            assert torch.allclose(out[b, c], mean + draws.contrast[b] * (image[b, c] - mean), atol=1e-5)
    assert 0.5 <= float(draws.contrast.min()) < 1 < float(draws.contrast.max()) <= 1.5


def test_sharpness_steepens_an_edge_and_leaves_flat_parts_alone():
    augment = Augment(sharpness=1.0, chance=1.0)
    image = torch.zeros(1, 1, 20, 20)
    image[..., 10:] = 1
    out = augment.intensity(image, drawn(augment, (20, 20), size=1))
    assert torch.allclose(out[..., :5], image[..., :5], atol=1e-4)
    assert float(out.max()) > 1.05
    assert float(out.min()) < -0.05


@dimensions_2_and_3
def test_changes_that_are_off_take_no_draw(dimensions):
    plain = drawn(Augment(**EVERYTHING), SHAPES[dimensions])
    more = drawn(Augment(**EVERYTHING, elastic=5.0, sharpness=0.5, contrast=0.2), SHAPES[dimensions])
    assert torch.equal(plain.blur, more.blur)
    assert plain.seed == more.seed
    assert not plain.elastic.any() and not plain.sharpness.any() and bool((plain.contrast == 1).all())


@dimensions_2_and_3
def test_ignored_labels_are_moved_and_never_blended(dimensions):
    shape = SHAPES[dimensions]
    batch = batch_of(shape)
    batch["label_context"] = torch.where(batch["context"] > 0, 255, 1).to(torch.uint8)
    augment = Augment(flip_axes=(0, 1), rotate=25.0, scale=(0.8, 1.2), elastic=30.0, elastic_smoothing=1.0)
    moved = augment.apply(batch, drawn(augment, shape))["label_context"]
    # 0 is what comes in from outside: background, as everywhere
    assert set(moved.unique().tolist()) == {0, 1, 255}
    assert not torch.equal(moved, batch["label_context"])
