"""Warps against a slow, independent resampling (scipy, double precision), and against flips and shifts by indexing."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import ndimage

from semi_med.ops import IGNORED, affine, gaussian_blur, seen, warp

SHAPES = {2: (7, 10), 3: (6, 9, 5)}
dimensions_2_and_3 = pytest.mark.parametrize("dimensions", [2, 3])


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def uniform(seed, *shape):
    return torch.rand(*shape, generator=generator(seed)) * 2 - 1


def label_of(shape, *, batch_size=2, seed=0):
    return torch.randint(0, 3, (batch_size, 1, *shape), generator=generator(seed)).to(torch.uint8)


def image_of(shape, *, batch_size=2, seed=0):
    return torch.randn(batch_size, 2, *shape, generator=generator(seed))


def family(name, shape, seed):
    """A drawn matrix for a batch of two."""
    n = len(shape)
    plane = [(0, 1), (1, 0)][seed % 2] if n == 2 else [(0, 1), (2, 1), (0, 2)][seed % 3]
    parts = {
        "rotation": affine.rotation(90 * uniform(seed, 2), plane, shape),
        "shear": affine.shear(40 * uniform(seed + 10, 2), plane, shape),
        "scale": affine.magnification(1.5 ** uniform(seed + 20, 2, n), shape),
        "translation": affine.translation(4 * uniform(seed + 30, 2, n)),
        "flip": affine.flip(uniform(seed + 40, 2, n) > 0, shape),
    }
    return parts[name] if name in parts else affine.compose(*parts.values())


every_kind = pytest.mark.parametrize("name", ["rotation", "shear", "scale", "translation", "flip", "all of them"])


def slow(maps, matrix, *, order, fill=0.0, output_shape=None):
    """Image by image and channel by channel."""
    shape = maps.shape[2:] if output_shape is None else output_shape
    out = np.empty((*maps.shape[:2], *shape))
    for b in range(len(maps)):
        m = matrix[b].numpy()
        for c in range(maps.shape[1]):
            out[b, c] = ndimage.affine_transform(
                maps[b, c].double().numpy(),
                m[:-1, :-1],
                offset=m[:-1, -1],
                output_shape=tuple(shape),
                order=order,
                mode="grid-constant",
                cval=fill,
            )
    return out


@dimensions_2_and_3
@every_kind
@pytest.mark.parametrize("seed", range(3))
def test_linear_sampling_equals_scipy(dimensions, name, seed):
    image, matrix = image_of(SHAPES[dimensions]), family(name, SHAPES[dimensions], seed)
    expected = slow(image, matrix, order=1, fill=0.5)
    np.testing.assert_allclose(warp(image, matrix, nearest=False, fill=0.5).numpy(), expected, atol=3e-5)


@dimensions_2_and_3
@every_kind
@pytest.mark.parametrize("seed", range(3))
def test_nearest_sampling_equals_scipy_in_every_voxel(dimensions, name, seed):
    label, matrix = label_of(SHAPES[dimensions]), family(name, SHAPES[dimensions], seed)
    warped = warp(label, matrix, nearest=True, fill=IGNORED)
    assert warped.dtype == torch.uint8
    assert np.array_equal(warped.numpy(), slow(label, matrix, order=0, fill=IGNORED))


@dimensions_2_and_3
@every_kind
def test_what_is_seen_is_where_nothing_is_filled_in(dimensions, name):
    shape = SHAPES[dimensions]
    for seed in range(3):
        matrix = family(name, shape, seed)
        taken = seen(matrix, shape)
        assert torch.equal(taken, warp(label_of(shape), matrix, nearest=True, fill=IGNORED) != IGNORED)
        sure = torch.from_numpy(slow(torch.ones(2, 1, *shape), matrix, order=1)) > 1 - 1e-6
        assert torch.equal(seen(matrix, shape, linear=True), sure)


@dimensions_2_and_3
@pytest.mark.parametrize("nearest", [True, False])
def test_a_flip_is_exact(dimensions, nearest):
    image = image_of(SHAPES[dimensions])
    axes = torch.zeros(2, dimensions, dtype=torch.bool)
    axes[0, 0] = axes[0, -1] = axes[1, 1] = True
    warped = warp(image, affine.flip(axes, SHAPES[dimensions]), nearest=nearest)
    assert torch.equal(warped[0], image[0].flip([1, dimensions]))
    assert torch.equal(warped[1], image[1].flip([2]))


@dimensions_2_and_3
@pytest.mark.parametrize("nearest", [True, False])
def test_a_shift_by_whole_voxels_is_exact(dimensions, nearest):
    image = image_of(SHAPES[dimensions])
    offset = torch.tensor([[2, -3, 1], [0, 1, -2]])[:, :dimensions]
    warped = warp(image, affine.translation(offset), nearest=nearest, fill=9)
    for b in range(2):
        expected = torch.full_like(image[b], 9)
        moves = list(zip(offset[b].tolist(), SHAPES[dimensions], strict=True))
        into = tuple(slice(max(0, d), s + min(0, d)) for d, s in moves)
        from_ = tuple(slice(max(0, -d), s + min(0, -d)) for d, s in moves)
        expected[(slice(None), *into)] = image[b][(slice(None), *from_)]
        assert torch.equal(warped[b], expected)


@pytest.mark.parametrize("shape", [(6, 6), (7, 7), (7, 10), (6, 9, 6)])
@pytest.mark.parametrize("quarters", [-1, 0, 1, 2, 3])
def test_a_quarter_turn_is_that_of_rot90(shape, quarters):
    image, plane = image_of(shape), (0, len(shape) - 1)
    expected = image.rot90(quarters, [2, len(shape) + 1])
    matrix = affine.quarter_turn(torch.full((2,), quarters), plane, shape)
    for nearest in (True, False):
        warped = warp(image, matrix, nearest=nearest, output_shape=expected.shape[2:])
        assert torch.equal(warped, expected)


@pytest.mark.parametrize("shape", [(6, 6), (7, 7), (5, 6, 6)])
def test_a_rotation_by_ninety_degrees_is_exact_too(shape):
    image, plane = image_of(shape), (len(shape) - 2, len(shape) - 1)
    matrix = affine.rotation(torch.tensor([90.0, -90.0]), plane, shape)
    expected = torch.stack([image[0].rot90(1, [-2, -1]), image[1].rot90(-1, [-2, -1])])
    assert torch.equal(warp(image, matrix, nearest=True), expected)
    assert torch.equal(warp(image, matrix, nearest=False), expected)
    assert seen(matrix, shape).all()
    assert seen(matrix, shape, linear=True).all()


def test_a_batch_of_unequal_axes_is_not_turned_by_a_quarter_in_some_images_only():
    with pytest.raises(ValueError, match=r"plane \(0, 1\) of size \(4, 6\) cannot be turned"):
        affine.quarter_turn(torch.tensor([1, 2]), (0, 1), (4, 6))


@dimensions_2_and_3
def test_a_crop_is_a_window_of_the_image(dimensions):
    image, size = image_of((9, 11, 7)[:dimensions]), (4, 5, 3)[:dimensions]
    start = torch.tensor([[2, 3, 1], [0, 6, 4]])[:, :dimensions]
    warped = warp(image, affine.crop(start), nearest=False, output_shape=size)
    for b in range(2):
        window = tuple(slice(f, f + s) for f, s in zip(start[b].tolist(), size, strict=True))
        assert torch.equal(warped[b], image[b][(slice(None), *window)])


@dimensions_2_and_3
def test_what_is_composed_is_done_in_the_order_it_is_written_in(dimensions):
    shape = SHAPES[dimensions]
    label = label_of(shape)
    shift = affine.translation(torch.tensor([[1, 2, 1]])[:, :dimensions].expand(2, -1))
    mirror = affine.flip(torch.ones(2, dimensions, dtype=torch.bool), shape)
    once = warp(label, affine.compose(shift, mirror), nearest=True)
    assert torch.equal(once, warp(warp(label, shift, nearest=True), mirror, nearest=True))
    assert not torch.equal(once, warp(label, affine.compose(mirror, shift), nearest=True))


@dimensions_2_and_3
def test_the_strong_view_is_brought_back_to_the_weak_one_to_the_pixel(dimensions):
    """T1 T2^-1 with flips and shifts: where both views see the image, they then agree exactly."""
    shape = SHAPES[dimensions]
    image = image_of(shape)
    weak, strong = (
        affine.compose(
            affine.flip(uniform(seed, 2, dimensions) > 0, shape),
            affine.translation((3 * uniform(seed + 1, 2, dimensions)).round()),
        )
        for seed in (0, 7)
    )
    back = affine.compose(affine.inverse(strong), weak)
    one, other = warp(image, weak, nearest=False), warp(image, strong, nearest=False)
    valid = (seen(weak, shape) & seen(back, shape, linear=True)).expand_as(image)
    returned = warp(other, back, nearest=False)
    assert 0.1 < valid.float().mean() < 1
    assert torch.equal(returned[valid], one[valid])


@dimensions_2_and_3
def test_an_image_is_warped_alike_whatever_else_is_in_the_batch(dimensions):
    shape = SHAPES[dimensions]
    image = image_of(shape)
    matrix = torch.cat([family("flip", shape, 0)[:1], family("rotation", shape, 0)[1:]])
    fill = torch.tensor([1.0, 2.0]).view(2, 1, *[1] * dimensions)
    both = warp(image, matrix, nearest=False, fill=fill)
    for b in (0, 1):
        assert torch.equal(both[b], warp(image[b : b + 1], matrix[b : b + 1], nearest=False, fill=b + 1)[0])


@dimensions_2_and_3
def test_a_gradient_reaches_each_voxel_that_is_used(dimensions):
    shape = SHAPES[dimensions]
    for name in ("translation", "flip", "rotation"):
        image = image_of(shape).requires_grad_()
        warp(image, family(name, shape, 0), nearest=False).square().sum().backward()
        assert torch.isfinite(image.grad).all()
        assert (image.grad != 0).float().mean() > 0.2


@dimensions_2_and_3
def test_a_displacement_comes_before_the_matrix(dimensions):
    shape = SHAPES[dimensions]
    image, matrix = image_of(shape), family("all of them", shape, 1)
    steps = torch.tensor([1.0, -2.0, 0.5][:dimensions])
    moved = steps.view(1, -1, *[1] * dimensions).expand(2, dimensions, *shape)
    shift = affine.translation(-moved.flatten(2)[:, :, 0])
    plain = warp(image, affine.compose(matrix, shift), nearest=False)
    assert torch.allclose(warp(image, matrix, nearest=False, displacement=moved), plain, atol=1e-5)


@dimensions_2_and_3
def test_a_blur_is_scipys(dimensions):
    image = image_of(SHAPES[dimensions])
    blurred = gaussian_blur(image, torch.tensor([0.0, 1.0]))
    assert torch.allclose(blurred[0], image[0], atol=1e-6)
    for c in range(2):
        expected = ndimage.gaussian_filter(image[1, c].double().numpy(), 1.0, radius=3, mode="nearest")
        np.testing.assert_allclose(blurred[1, c].numpy(), expected, atol=1e-5)
