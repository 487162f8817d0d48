import math

import pytest
import torch
from monai.data import MetaTensor
from torch import nn

from semi_med.errors import InputError
from semi_med.inference.sliding_window import ProbabilityWindowInferer


class Recorder(nn.Module):
    """Logits 0 and x; remembers how many windows it saw and what they were."""

    def __init__(self) -> None:
        super().__init__()
        self.windows: list[torch.Tensor] = []
        self.autocast: list[bool] = []

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        self.windows.append(image.clone())
        self.autocast.append(torch.is_autocast_enabled("cpu"))
        return torch.cat([torch.zeros_like(image), image], dim=1)


class Constant(nn.Module):
    """The same two logits everywhere."""

    def __init__(self, *logits: float) -> None:
        super().__init__()
        self.logits = torch.tensor(logits).reshape(1, -1, 1, 1, 1)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.logits.expand(image.shape[0], -1, *image.shape[2:])


@pytest.mark.parametrize(
    ("size", "window", "stride"),
    # a plain overlap of 1 - stride / window makes MONAI move by one voxel less in each of the first four
    [(50, 10, 2), (60, 12, 4), (200, 112, 16), (120, 80, 8), (200, 112, 18), (130, 80, 4), (20, 10, 10), (9, 3, 1)],
)
def test_windows_move_by_the_very_stride(size, window, stride):
    network = Recorder()
    image = torch.arange(float(size)).reshape(1, 1, size, 1, 1)
    ProbabilityWindowInferer((window, 1, 1), (stride, 1, 1))(image, network)
    starts = [int(seen[0, 0, 0, 0, 0]) for seen in network.windows]
    count = math.ceil((size - window) / stride) + 1
    assert starts == [min(step * stride, size - window) for step in range(count)]


def test_each_axis_has_its_own_window_and_stride():
    network = Recorder()
    ProbabilityWindowInferer((4, 3, 2), (2, 3, 1))(torch.zeros(1, 1, 8, 6, 4), network)
    assert len(network.windows) == 3 * 2 * 3
    assert {tuple(seen.shape[2:]) for seen in network.windows} == {(4, 3, 2)}


@pytest.mark.parametrize(
    ("window", "stride", "seen"), [((-1, -1, -1), (3, 3, 3), (8, 6, 4)), ((4, -1, 2), (4, 9, 2), (4, 6, 2))]
)
def test_a_window_can_be_the_whole_of_an_axis(window, stride, seen):
    network, image = Recorder(), torch.randn(1, 1, 8, 6, 4)
    probs = ProbabilityWindowInferer(window, stride)(image, network)
    assert {tuple(part.shape[2:]) for part in network.windows} == {seen}
    assert torch.allclose(probs[:, 1:], torch.sigmoid(image))


def test_every_window_counts_the_same():
    class Counter(nn.Module):
        calls = 0

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            self.calls += 1
            odds = math.log(3) if self.calls == 1 else -math.log(3)  # probabilities 3/4 and 1/4
            return torch.cat([torch.zeros_like(image), torch.full_like(image, odds)], dim=1)

    probs = ProbabilityWindowInferer((4, 1, 1), (2, 1, 1))(torch.zeros(1, 1, 6, 1, 1), Counter())
    torch.testing.assert_close(probs[0, 1, :, 0, 0], torch.tensor([0.75, 0.75, 0.5, 0.5, 0.25, 0.25]))


def test_two_networks_give_the_mean_of_their_probabilities_not_of_their_logits():
    inferer = ProbabilityWindowInferer((2, 2, 2), (1, 1, 1))
    probs = inferer(torch.zeros(1, 1, 3, 3, 3), [Constant(0.0, math.log(9)), Constant(math.log(1.5), 0.0)])
    # 0.9 and 0.4; the mean of the logits would give 0.71
    torch.testing.assert_close(probs[:, 1], torch.full((1, 3, 3, 3), 0.65))


def test_probabilities_sum_to_one_for_three_classes():
    probs = ProbabilityWindowInferer((3, 2, 2), (2, 1, 2))(torch.zeros(2, 1, 7, 4, 5), Constant(0.3, -2.0, 1.0))
    assert probs.shape == (2, 3, 7, 4, 5)
    torch.testing.assert_close(probs.sum(1), torch.ones(2, 7, 4, 5))


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 9, 2), (4, 4, 4), (5, 1, 8)])
def test_a_small_volume_is_padded_with_zeros_and_cropped_back(shape):
    network, image = Recorder(), torch.rand(1, 1, *shape) + 1
    probs = ProbabilityWindowInferer((4, 4, 4), (2, 2, 2))(image, network)
    torch.testing.assert_close(probs[:, 1:], torch.sigmoid(image))
    padding = torch.cat([seen[seen < 1] for seen in network.windows])
    assert (padding == 0).all()


def test_padding_is_even_on_both_sides():
    network = Recorder()
    ProbabilityWindowInferer((5, 1, 1), (1, 1, 1))(torch.ones(1, 1, 2, 1, 1), network)
    assert network.windows[0].flatten().tolist() == [0, 1, 1, 0, 0]


@pytest.mark.parametrize("amp", [False, True])
def test_reduced_precision_is_asked_for_and_sums_stay_in_float32(amp):
    network = Recorder()
    probs = ProbabilityWindowInferer((2, 2, 2), (1, 1, 1), amp=amp)(torch.zeros(1, 1, 3, 3, 3), network)
    assert set(network.autocast) == {amp}
    assert probs.dtype == torch.float32


def test_half_precision_input_is_summed_in_float32():
    probs = ProbabilityWindowInferer((2, 2, 2), (1, 1, 1))(torch.zeros(1, 1, 3, 3, 3).half(), Recorder())
    assert probs.dtype == torch.float32


def test_the_result_does_not_depend_on_how_many_windows_go_at_once():
    image = torch.randn(1, 1, 7, 6, 5, generator=torch.Generator().manual_seed(0))
    one, four = (
        ProbabilityWindowInferer((3, 3, 3), (2, 1, 2), sw_batch_size=size)(image, Recorder()) for size in (1, 4)
    )
    torch.testing.assert_close(one, four)


def test_metadata_pass_through():
    image = MetaTensor(torch.zeros(1, 1, 3, 3, 3), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    probs = ProbabilityWindowInferer((2, 2, 2), (1, 1, 1))(image, Recorder())
    torch.testing.assert_close(probs.affine, image.affine)


@pytest.mark.parametrize(
    ("window", "stride"), [((4, 4, 4), (2, 2)), ((4, 4, 4), (0, 2, 2)), ((4, 4, 4), (5, 2, 2)), ((0, 4, 4), (1, 1, 1))]
)
def test_a_stride_that_does_not_fit_its_window_is_refused(window, stride):
    with pytest.raises(InputError, match="a stride from 1 to the window size"):
        ProbabilityWindowInferer(window, stride)


def test_one_output_channel_is_refused_because_its_softmax_is_one():
    with pytest.raises(ValueError, match="two channels or more"):
        ProbabilityWindowInferer((2, 2, 2), (1, 1, 1))(torch.zeros(1, 1, 2, 2, 2), Constant(3.0))


def test_no_network_is_refused():
    with pytest.raises(InputError, match="at least one network"):
        ProbabilityWindowInferer((2, 2, 2), (1, 1, 1))(torch.zeros(1, 1, 2, 2, 2), [])


# ---- 2D networks ---------------------------------------------------------------------------------------------------


def mixing(classes: int = 3) -> nn.Module:
    """A 2D network that looks at neighbours, so that a slice or a window in the wrong place shows."""
    torch.manual_seed(0)
    return nn.Conv2d(1, classes, 3, padding=1).requires_grad_(False)


def test_a_volume_is_segmented_as_its_slices_are():
    network, volume = mixing(), torch.rand(2, 1, 9, 7, 5, generator=torch.Generator().manual_seed(1))
    inferer = ProbabilityWindowInferer((4, 4), (3, 2), sw_batch_size=2)
    alone = torch.stack([inferer(volume[..., k], network) for k in range(5)], dim=-1)
    found = inferer(volume, network)
    assert found.shape == (2, 3, 9, 7, 5)
    torch.testing.assert_close(found, alone)


@pytest.mark.parametrize(("axis", "place"), [(0, 2), (1, 3), (2, 4), (-1, 4)])
def test_slices_run_along_the_axis_that_is_named(axis, place):
    network, volume = mixing(), torch.rand(1, 1, 6, 5, 4, generator=torch.Generator().manual_seed(1))
    plain = ProbabilityWindowInferer((4, 4), (2, 2))
    found = ProbabilityWindowInferer((4, 4), (2, 2), slice_axis=axis)(volume, network)
    torch.testing.assert_close(found.select(place, 3), plain(volume.select(place, 3), network))


@pytest.mark.parametrize(("size", "seen"), [(1, [1] * 5), (2, [2, 2, 1]), (8, [5])])
def test_several_slices_go_through_a_network_at_once_and_no_more(size, seen):
    network = Recorder()
    ProbabilityWindowInferer((4, 4), (4, 4), sw_batch_size=size)(torch.zeros(1, 1, 4, 4, 5), network)
    assert [len(windows) for windows in network.windows] == seen


def test_a_small_slice_is_padded_and_cropped_back():
    network, volume = Recorder(), torch.rand(1, 1, 3, 2, 4) + 1
    probs = ProbabilityWindowInferer((4, 4), (2, 2))(volume, network)
    torch.testing.assert_close(probs[:, 1:], torch.sigmoid(volume))


def test_metadata_pass_through_slices():
    image = MetaTensor(torch.zeros(1, 1, 3, 3, 3), affine=torch.diag(torch.tensor([2.0, 2, 2, 1])))
    probs = ProbabilityWindowInferer((2, 2), (1, 1))(image, Recorder())
    torch.testing.assert_close(probs.affine, image.affine)


def test_an_axis_that_is_not_there_is_refused():
    with pytest.raises(InputError, match="0, 1, 2 or -1, not 3"):
        ProbabilityWindowInferer((2, 2), (1, 1), slice_axis=3)
