from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch
from torch import nn

from semi_med.errors import InputError, ResourceError
from semi_med.networks import DeepLabV3Plus

SMALL = {"backbone": "resnet18", "decoder_channels": 8}


def tiny(in_channels: int = 3, **settings: object) -> DeepLabV3Plus:
    torch.manual_seed(0)
    return DeepLabV3Plus(in_channels, 3, **{**SMALL, **settings})


def published(backbone: str = "resnet18") -> dict[str, torch.Tensor]:
    """A state dict with the names of the published files, with the classifier that we do not have."""
    torch.manual_seed(3)
    encoder = DeepLabV3Plus(3, 2, **{**SMALL, "backbone": backbone}).encoder
    weights = {name: value + 0.01 for name, value in encoder.state_dict().items() if "tracked" not in name}
    return {**weights, "fc.weight": torch.zeros(1000, 512), "fc.bias": torch.zeros(1000)}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(published(), path)
    return path


@pytest.mark.parametrize(("dimensions", "size"), [(2, (65, 47)), (3, (24, 33, 17))])
def test_logits_have_the_size_of_the_image_and_one_channel_a_class(dimensions, size):
    assert tiny(2, spatial_dims=dimensions)(torch.randn(2, 2, *size)).shape == (2, 3, *size)


@pytest.mark.parametrize(("backbone", "encoder", "all_"), [("resnet18", 11_176_512, 14e6), ("resnet101", 42.5e6, 59e6)])
def test_the_encoders_have_the_sizes_of_torchvisions(backbone, encoder, all_):
    with torch.device("meta"):
        network = DeepLabV3Plus(3, 2, backbone=backbone)
    assert sum(p.numel() for p in network.encoder.parameters()) == pytest.approx(encoder, rel=1e-3)
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(all_, rel=0.2)


@pytest.mark.parametrize("backbone", ["resnet18", "resnet50"])
def test_the_fourth_stage_is_dilated_instead_of_strided(backbone):
    network = tiny(backbone=backbone).eval()
    low, high = network.features(torch.randn(1, 3, 64, 96))
    assert (low.shape[2:], high.shape[2:]) == ((16, 24), (4, 6))
    convs, others = (
        [m for m in stage.modules() if isinstance(m, nn.Conv2d)]
        for stage in (network.encoder.layer4, network.encoder.layer3)
    )
    dilations = [m.dilation for m in convs if m.kernel_size[0] == 3]
    first = len(dilations) - dilations.count((2, 2))
    assert first == (2 if backbone == "resnet18" else 1)  # the 3x3 convolutions of the first block
    assert {m.dilation for m in others} == {(1, 1)}


def test_a_file_of_published_weights_is_loaded_into_every_stage(file):
    weights, network = published(), tiny(encoder_weights=file)
    state = network.encoder.state_dict()
    assert all(torch.equal(state[name], value) for name, value in weights.items() if not name.startswith("fc"))


def test_one_channel_takes_the_sum_of_the_colours(file):
    grey, colour = tiny(1, encoder_weights=file), tiny(3, encoder_weights=file)
    image = torch.randn(1, 1, 16, 16)
    found = grey.encoder.conv1(image)
    assert torch.allclose(found, colour.encoder.conv1(image.repeat(1, 3, 1, 1)), atol=1e-5)


def test_without_a_network_the_error_says_what_to_download_and_where_to_put_it(monkeypatch):
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(ResourceError, match=r"could not be downloaded .*no route") as caught:
        tiny(encoder_weights="imagenet")
    assert "resnet18.tv_in1k/resolve/main/pytorch_model.bin" in str(caught.value)
    assert "put it as resnet18.tv_in1k.bin into" in str(caught.value)


def test_what_lies_in_the_hub_folder_is_taken_without_a_network(file, monkeypatch, tmp_path):
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "resnet18.tv_in1k.bin").write_bytes(file.read_bytes())
    network = tiny(encoder_weights="imagenet")
    assert torch.equal(network.encoder.conv1.weight, published()["conv1.weight"])


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"backbone": "resnet7"}, "there is no backbone 'resnet7'"),
        ({"encoder_weights": "missing.pth"}, "the file of encoder weights is missing"),
        ({"encoder_weights": "imagenet", "spatial_dims": 3}, "2 dimensions, not for 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, text):
    with pytest.raises(InputError, match=text):
        tiny(**settings)


def test_weights_of_another_backbone_are_refused(file):
    with pytest.raises(InputError, match=r"these are not the encoder's weights.* layer1.2.conv1.weight"):
        tiny(backbone="resnet34", encoder_weights=file)


def test_one_image_in_training_is_refused_with_the_next_step():
    network, image = tiny(), torch.randn(1, 3, 32, 32)
    with pytest.raises(ValueError, match="set batch_size and unlabeled_batch_size to at least 2"):
        network(image)
    assert network.eval()(image).shape == (1, 3, 32, 32)


def test_every_parameter_gets_a_gradient():
    network = tiny()
    network(torch.randn(2, 3, 64, 64)).square().sum().backward()
    assert [name for name, p in network.named_parameters() if p.grad is None or not p.grad.any()] == []
