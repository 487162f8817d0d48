from __future__ import annotations

import math

import pytest

from semi_med.ops import gaussian_ramp


@pytest.mark.parametrize(
    ("iteration", "expected"), [(0, math.exp(-5)), (50, math.exp(-1.25)), (80, math.exp(-0.2)), (100, 1), (10**6, 1)]
)
def test_the_ramp_is_a_gaussian_up_to_its_length_and_one_after(iteration, expected):
    assert gaussian_ramp(iteration, 100) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("length", [0, -3])
def test_no_length_means_no_ramp(length):
    assert gaussian_ramp(0, length) == 1


def test_the_ramp_never_falls():
    values = [gaussian_ramp(i, 37) for i in range(50)]
    assert values == sorted(values)
