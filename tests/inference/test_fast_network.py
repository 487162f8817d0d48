"""The fast form of a network says what the network says."""

import math

import pytest
import torch
from inference_samples import convolution, write_bundle, write_nifti
from monai.networks.nets import BasicUNet
from torch import nn

from semi_med.errors import InputError
from semi_med.inference import Predictor, winograd
from semi_med.inference.fast_network import _Packed, prepared
from semi_med.inference.precision import Precisions
from semi_med.networks import VNet


def trained(network: nn.Module) -> nn.Module:
    """Norms with statistics, as after a training."""
    torch.manual_seed(0)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm3d):
            module.running_mean.normal_(0, 0.1)
            module.running_var.uniform_(0.5, 1.5)
            module.weight.data.uniform_(0.5, 1.5)
    return network.eval().requires_grad_(False)


NETWORKS = {
    "vnet": lambda: VNet(1, 3, base_filters=4, levels=3),
    "interpolated": lambda: VNet(1, 3, base_filters=4, levels=3, upsampling="interpolated"),
    "two channels": lambda: VNet(2, 3, base_filters=4, levels=3),
    "instance norm": lambda: VNet(1, 3, base_filters=4, levels=3, normalization="instance"),
    "unet": lambda: BasicUNet(3, 1, 3, features=(4, 4, 4, 4, 4, 4), norm="batch"),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_probabilities_are_the_same_to_rounding(name):
    network = trained(NETWORKS[name]())
    channels = 2 if name == "two channels" else 1
    fast = prepared(network, window=(16, 16, 32), channels=channels)
    assert fast is not None
    image = torch.randn(2, channels, 16, 16, 32)
    torch.testing.assert_close(fast(image).softmax(1), network(image).softmax(1), atol=1e-5, rtol=0)


@pytest.mark.parametrize("name", ["vnet", "instance norm"])
def test_bfloat16_changes_little_and_gives_float32(name):
    network = trained(NETWORKS[name]())
    fast = prepared(network, window=(16, 16, 16), channels=1, reduced=True)
    assert fast is not None
    image = torch.randn(1, 1, 16, 16, 16)
    found = fast(image)
    assert found.dtype == torch.float32
    difference = (found.softmax(1) - network(image).softmax(1)).abs().max()
    assert 0 < difference < 0.1


def test_batch_norms_are_folded_and_convolutions_packed():
    fast = prepared(trained(NETWORKS["vnet"]()), window=(16, 16, 16), channels=1)
    assert fast is not None
    kinds = [type(module) for module in fast.modules()]
    assert nn.BatchNorm3d not in kinds
    if hasattr(torch._C._nn, "mkldnn_reorder_conv3d_weight"):
        assert _Packed in kinds


needs_packing = pytest.mark.skipif(
    not hasattr(torch._C._nn, "mkldnn_reorder_conv3d_weight") or not torch.backends.mkldnn.is_available(),
    reason="this build of torch packs no weights",
)


@needs_packing
@pytest.mark.parametrize("relu", [False, True])
@pytest.mark.parametrize("size", [(4, 5, 6), (7, 3, 2), (14, 6, 5), (21, 4, 8)])
@pytest.mark.parametrize("at_once", [2**24, 2**12])
def test_four_planes_from_six_are_the_convolution(monkeypatch, size, relu, at_once):
    monkeypatch.setattr(winograd, "_AT_ONCE", at_once)
    torch.manual_seed(1)
    layer = nn.Conv3d(16, 24, 3, padding=1).requires_grad_(False)
    image = torch.randn(2, 16, *size)
    wanted = layer(image).relu() if relu else layer(image)
    assert winograd.Winograd.suits(layer)
    torch.testing.assert_close(winograd.Winograd(layer, relu=relu)(image), wanted, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    "layer",
    [
        nn.Conv3d(8, 32, 3, padding=1),
        nn.Conv3d(32, 32, 3, padding=0),
        nn.Conv3d(32, 32, 3, padding=1, stride=2),
        nn.Conv3d(32, 32, 3, padding=1, groups=2),
        nn.Conv3d(32, 32, 3, padding=2, dilation=2),
        nn.Conv3d(32, 32, 3, padding=1, padding_mode="replicate"),
        nn.Conv3d(32, 32, (3, 3, 1), padding=(1, 1, 0)),
    ],
)
def test_other_convolutions_are_not_made_of_planes(layer):
    assert not winograd.Winograd.suits(layer)


def test_planes_pay_where_few_are_made_in_vain():
    assert [planes for planes in range(1, 10) if winograd.Winograd.pays(planes)] == [3, 4, 6, 7, 8, 9]


@needs_packing
@pytest.mark.parametrize("reduced", [False, True])
def test_wide_layers_are_made_of_planes_in_float32_and_say_the_same(reduced):
    network = trained(VNet(1, 3, base_filters=16, levels=3))
    fast = prepared(network, window=(16, 16, 32), channels=1, reduced=reduced)
    assert fast is not None
    kinds = [type(module) for module in fast.modules()]
    assert (winograd.Winograd in kinds) == (not reduced)
    assert _Packed in kinds
    image = torch.randn(1, 1, 16, 16, 32)
    difference = (fast(image).softmax(1) - network(image).softmax(1)).abs().max()
    assert difference < (0.1 if reduced else 1e-5)


def test_the_network_itself_is_left_as_it_is():
    network = trained(NETWORKS["vnet"]())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    prepared(network, window=(16, 16, 16), channels=1)
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())


class Twice(nn.Module):
    """A norm stands behind a convolution, but is also used without it: folding it would change what is said."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv3d(1, 3, 3, padding=1), nn.BatchNorm3d(3))

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return self.first(image) + self.first[1](image.expand(-1, 3, -1, -1, -1))


def test_a_network_that_would_say_something_else_is_not_changed():
    assert prepared(trained(Twice()), window=(8, 8, 8), channels=1) is None


def test_two_dimensions_are_left_alone():
    assert prepared(nn.Conv2d(1, 2, 3).eval(), window=(16, 16), channels=1) is None


# ---- which precision -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("amp", "wanted"), [(False, "float32"), (True, "bfloat16")])
def test_the_precision_is_by_default_that_of_the_bundle(tmp_path, amp, wanted):
    predictor = Predictor.load(write_bundle(tmp_path / "b", amp=amp), device="cpu")
    predictor(write_nifti(tmp_path / "a.nii", torch.rand(5, 5, 5).numpy()))
    assert predictor.precisions.chosen == wanted


@pytest.mark.parametrize(
    ("able", "agreement", "wanted", "told"),
    [(False, 1.0, "float32", 0), (True, 0.999, "bfloat16", 0), (True, 0.99, "float32", 1)],
)
def test_auto_is_bfloat16_where_the_machine_has_it_and_a_window_agrees(
    tmp_path, monkeypatch, able, agreement, wanted, told
):
    monkeypatch.setattr("semi_med.inference.precision._computes_bfloat16", lambda device: able)
    monkeypatch.setattr(Precisions, "_agreement", lambda self, image: agreement)
    predictor = Predictor.load(write_bundle(tmp_path / "b"), device="cpu", precision="auto")
    found = predictor(write_nifti(tmp_path / "a.nii", torch.rand(5, 5, 5).numpy()))
    assert predictor.precisions.chosen == wanted
    assert sum(one.startswith("PRECISION") for one in found.warnings) == told


def test_auto_decides_with_the_first_scan_whose_window_shows_a_foreground(tmp_path, monkeypatch):
    monkeypatch.setattr("semi_med.inference.precision._computes_bfloat16", lambda device: True)
    states = {"model": convolution(1.0, bias=-1.0)}
    predictor = Predictor.load(write_bundle(tmp_path / "b", states=states), device="cpu", precision="auto")
    dark = torch.zeros(9, 9, 9)
    dark[0] = 9.0  # seen by no window in the middle
    bright = torch.zeros(9, 9, 9)
    bright[:, 2:7, 2:7] = 9.0
    chosen, told = [], []
    for number, scan in enumerate((dark, bright, dark)):
        found = predictor(write_nifti(tmp_path / f"{number}.nii", scan.numpy()))
        chosen.append(predictor.precisions.chosen)
        told.append([one for one in found.warnings if one.startswith("PRECISION")])
    assert chosen == ["float32", "bfloat16", "bfloat16"]
    assert [len(one) for one in told] == [1, 0, 0]
    assert "no foreground" in told[0][0]


@pytest.mark.parametrize("shape", [(5, 5, 5), (2, 9, 3)])
def test_the_middle_window_is_compared_whatever_the_size_of_the_scan(tmp_path, shape):
    predictor = Predictor.load(write_bundle(tmp_path / "b"), device="cpu", precision="auto")
    agreement = predictor.precisions._agreement(torch.linspace(-1, 1, math.prod(shape)).reshape(1, *shape))
    assert 0.9 < agreement <= 1


@pytest.mark.parametrize("precision", ["bundle", "auto"])
def test_a_window_may_be_the_whole_of_an_axis(tmp_path, monkeypatch, precision):
    monkeypatch.setattr("semi_med.inference.precision._computes_bfloat16", lambda device: True)
    bundle = write_bundle(tmp_path / "b", window=(4, -1, -1), stride=(2, 1, 1))
    predictor = Predictor.load(bundle, device="cpu", precision=precision)
    found = predictor(write_nifti(tmp_path / "a.nii", torch.linspace(-1, 1, 210).reshape(5, 6, 7).numpy()))
    assert found.label.shape == (5, 6, 7)
    assert 0.9 < predictor.precisions._agreement(torch.linspace(-1, 1, 210).reshape(1, 5, 6, 7)) <= 1


def test_an_unknown_precision_is_refused(tmp_path):
    with pytest.raises(InputError, match="float32, bfloat16, auto is wanted, not 'half'"):
        Predictor.load(write_bundle(tmp_path / "b"), device="cpu", precision="half")
