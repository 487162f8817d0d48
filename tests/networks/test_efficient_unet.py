from __future__ import annotations

import urllib.error
from pathlib import Path

import pytest
import torch

from semi_med.errors import InputError, ResourceError
from semi_med.networks import EfficientUNet

SMALL = "efficientnet-b0"


def published(backbone: str = SMALL) -> dict[str, torch.Tensor]:
    """A state dict with the names of the published files: blocks numbered through, three colours."""
    torch.manual_seed(3)
    weights, number, last = {}, -1, ""
    for name, value in EfficientUNet(3, 2, backbone=backbone).encoder.state_dict().items():
        if name.startswith("_blocks."):
            _, stage, block, rest = name.split(".", 3)
            if f"{stage}.{block}" != last:
                number, last = number + 1, f"{stage}.{block}"
            name = f"_blocks.{number}.{rest}"
        weights[name] = value + 0.01
    return weights


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "b0.pth"
    torch.save(published(), path)
    return path


@pytest.mark.parametrize(("dimensions", "size"), [(2, (64, 50)), (3, (32, 32, 40))])
def test_logits_have_the_size_of_the_image_and_one_channel_a_class(dimensions, size):
    network = EfficientUNet(2, 3, spatial_dims=dimensions, backbone=SMALL).eval()
    with torch.no_grad():
        assert network(torch.randn(1, 2, *size)).shape == (1, 3, *size)


def test_b4_has_the_size_of_the_library_that_the_paper_used():
    parameters = sum(p.numel() for p in EfficientUNet(3, 4).parameters())
    assert 19e6 < parameters < 23e6


def test_a_file_of_published_weights_is_loaded_into_every_block(file):
    weights, network = published(), EfficientUNet(3, 2, backbone=SMALL, encoder_weights=file)
    state = network.encoder.state_dict()
    assert torch.equal(state["_conv_stem.weight"], weights["_conv_stem.weight"])
    last_theirs = [name for name in weights if name.startswith("_blocks.")][-2]
    last_ours = [name for name in state if name.startswith("_blocks.")][-2]
    assert last_theirs.rsplit(".", 1)[1] == last_ours.rsplit(".", 1)[1]
    assert torch.equal(state[last_ours], weights[last_theirs])


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_a_grey_image_gives_the_same_response_for_any_number_of_channels(file, channels):
    reference = EfficientUNet(3, 2, backbone=SMALL, encoder_weights=file).encoder._conv_stem
    network = EfficientUNet(channels, 2, backbone=SMALL, encoder_weights=file).encoder._conv_stem
    grey = torch.randn(1, 1, 16, 16)
    wanted = reference(grey.repeat(1, 3, 1, 1))
    found = network(grey.repeat(1, channels, 1, 1))
    if channels in (1, 3):
        assert torch.allclose(found, wanted, atol=1e-5)
    else:
        kernel = published()["_conv_stem.weight"]
        assert torch.allclose(network.weight, kernel[:, [c % 3 for c in range(channels)]] * 3 / channels)


def test_without_a_network_the_error_says_what_to_download_and_where_to_put_it(monkeypatch):
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no route")

    monkeypatch.setattr(torch.hub, "load_state_dict_from_url", offline)
    with pytest.raises(ResourceError, match=r"could not be downloaded .*no route") as caught:
        EfficientUNet(3, 2, backbone=SMALL, encoder_weights="imagenet")
    assert "efficientnet-b0-355c32eb.pth" in str(caught.value)
    assert "as encoder_weights" in str(caught.value)


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"backbone": "resnet50"}, "there is no backbone 'resnet50'"),
        ({"encoder_weights": "missing.pth"}, "the file of encoder weights is missing"),
        ({"encoder_weights": "imagenet", "spatial_dims": 3}, "2 dimensions, not for 3"),
    ],
)
def test_settings_that_cannot_be_are_refused(settings, text):
    with pytest.raises(InputError, match=text):
        EfficientUNet(3, 2, **{"backbone": SMALL, **settings})


def test_weights_of_another_backbone_and_files_that_are_none_are_refused(file, tmp_path):
    with pytest.raises(InputError, match="these are not the encoder's weights"):
        EfficientUNet(3, 2, backbone="efficientnet-b1", encoder_weights=file)
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"no weights")
    with pytest.raises(InputError, match="no weights can be read from this file"):
        EfficientUNet(3, 2, backbone=SMALL, encoder_weights=broken)
