"""Does an exported network say what the network says? Numbers by hand."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from semi_med.errors import InputError
from semi_med.export.parity import (
    check,
    compare,
    other_sizes,
    random_windows,
    windows_of,
    works_on_other_sizes,
)


class Fixed(nn.Module):
    """Three classes whose outputs are 4, 2 and 0 wherever one looks."""

    def forward(self, image):
        return torch.tensor([4.0, 2.0, 0.0]).reshape(1, 3, 1, 1).expand(image.shape[0], 3, *image.shape[2:])


WINDOW = torch.zeros(1, 1, 4, 6)


def test_equal_outputs_differ_by_nothing():
    found = compare(Fixed(), Fixed(), [WINDOW, WINDOW])
    assert (found.windows, found.shape) == (2, (1, 1, 4, 6))
    assert (found.largest, found.probability, found.other_class) == (0, 0, 0)


def test_a_difference_is_relative_where_outputs_are_above_one():
    found = compare(
        Fixed(), lambda image: Fixed()(image) + torch.tensor([0.0, 0.02, 0.0]).reshape(1, 3, 1, 1), [WINDOW]
    )
    assert found.largest == pytest.approx(0.02 / 4, rel=1e-4)
    assert found.other_class == 0
    small = compare(nn.Identity(), lambda image: image + 0.25, [torch.zeros(1, 3, 4, 6)])
    assert small.largest == 0.25


def test_voxels_of_another_class_are_counted():
    def swapped(image):
        found = Fixed()(image).clone()
        found[..., :3] = found[..., :3].flip(1)
        return found

    assert compare(Fixed(), swapped, [WINDOW]).other_class == 0.5


@pytest.mark.parametrize("wrong", [lambda image: Fixed()(image)[:, :2], lambda image: Fixed()(image) * float("nan")])
def test_another_shape_and_what_is_not_finite_are_as_far_off_as_can_be(wrong):
    found = compare(Fixed(), wrong, [WINDOW])
    assert found.largest == float("inf")
    with pytest.raises(InputError, match="up to inf away"):
        check({"random": found}, tolerance=1e-4, where="model.ts")


def test_an_error_says_how_far_off_on_what_and_what_to_do(code="PARITY"):
    found = compare(Fixed(), lambda image: Fixed()(image).flip(1), [WINDOW])
    check({"random": found}, tolerance=1.0, where="model.ts")
    with pytest.raises(InputError) as caught:
        check({"real": found}, tolerance=1e-4, where="model.ts")
    assert caught.value.code == code
    assert str(caught.value).startswith("model.ts: on real input the exported network's output is up to 1 away")
    assert "at most 0.0001 is allowed; 100% of the voxels get another class" in str(caught.value)
    assert "--tolerance" in str(caught.value)


def test_random_windows_are_the_same_each_time_and_differ_from_each_other():
    first, second = random_windows(2, (4, 6, 5))
    assert first.shape == (1, 2, 4, 6, 5)
    assert torch.equal(first, random_windows(2, (4, 6, 5))[0])
    assert not torch.equal(first, second)


def test_the_other_size_is_another_one_with_unequal_axes():
    assert other_sizes(1, (112, 112, 80)).shape == (2, 1, 64, 32, 64)
    assert other_sizes(1, (64, 32)).shape == (2, 1, 96, 32)


def test_other_sizes_work_do_not_work_or_cannot_be_tried():
    batch = torch.zeros(2, 1, 8, 6)

    def only_four(image):
        if image.shape[2] != 4:
            raise RuntimeError("a runtime that wants one size")
        return Fixed()(image)

    assert works_on_other_sizes(Fixed(), Fixed(), batch, tolerance=1e-4) is True
    assert works_on_other_sizes(Fixed(), only_four, batch, tolerance=1e-4) is False
    assert works_on_other_sizes(nn.Linear(3, 3), Fixed(), batch, tolerance=1e-4) is None


def test_windows_of_a_scan_run_from_corner_to_corner():
    image = torch.arange(2 * 6 * 8 * 5, dtype=torch.float32).reshape(2, 6, 8, 5)
    first, middle, last = windows_of(image, (4, 4, 5))
    assert torch.equal(first[0], image[:, :4, :4])
    assert torch.equal(middle[0], image[:, 1:5, 2:6])
    assert torch.equal(last[0], image[:, 2:, 4:])


def test_a_scan_that_is_smaller_than_the_window_is_padded_on_both_sides():
    (window,) = windows_of(torch.ones(1, 2, 5), (4, 3), count=1)
    assert window.shape == (1, 1, 4, 3)
    assert window[0, 0, :, 0].tolist() == [0, 1, 1, 0]


def test_slices_of_a_volume_go_through_a_2d_window():
    image = torch.arange(4 * 3 * 9, dtype=torch.float32).reshape(1, 4, 3, 9)
    first, middle, last = windows_of(image, (4, 3))
    assert [torch.equal(found[0], image[..., k]) for found, k in ((first, 0), (middle, 4), (last, 8))] == [True] * 3
    across = list(windows_of(image, (3, 9), slice_axis=0))
    assert torch.equal(across[2][0], image[:, 3])
