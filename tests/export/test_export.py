"""A bundle as TorchScript and ONNX, with its model card."""

from __future__ import annotations

import hashlib
import io
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from semi_med import cli
from semi_med.errors import InputError, ResourceError
from semi_med.export import export_bundle
from semi_med.export.card import cell
from semi_med.inference.io import write_image
from semi_med.networks import EfficientUNet, VNet

CLASSES = {"0": "background", "1": "heart", "2": "lung | <b>"}
SMALL_VNET = {"_target_": "semi_med.networks.VNet", "out_channels": 3, "base_filters": 2, "levels": 3}
FLAT_VNET = {**SMALL_VNET, "spatial_dims": 2, "upsampling": "interpolated"}
EFFICIENT = {"_target_": "semi_med.networks.EfficientUNet", "out_channels": 3, "backbone": "efficientnet-b0"}


def write_bundle(folder: Path, definition: dict, *, window: tuple[int, ...], peer: bool = False) -> Path:
    """A bundle with random weights."""
    config = {
        "network_def": definition,
        **({"peer_def": definition} if peer else {}),
        "crop_size": list(window),
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True},
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                {"_target_": "ScaleIntensityd", "keys": "image", "maxv": "@classes"},
            ],
        },
        "classes": 3,
        "inferer": {
            "_target_": "semi_med.inference.ProbabilityWindowInferer",
            "roi_size": "@crop_size",
            "stride": "@crop_size",
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [{"_target_": "AsDiscreted", "keys": "pred", "argmax": True}],
        },
    }
    outputs = {"pred": {"channel_def": CLASSES}}
    metadata = {"network_data_format": {"inputs": {"image": {"num_channels": 1}}, "outputs": outputs}}
    (folder / "configs").mkdir(parents=True)
    (folder / "models").mkdir()
    for name, content in (("inference", config), ("metadata", metadata)):
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content))
    torch.manual_seed(0)
    keys = ("model", "peer") if peer else ("model",)
    torch.save({key: network_of(definition).state_dict() for key in keys}, folder / "models" / "model.pt")
    return folder


def network_of(definition: dict) -> nn.Module:
    kind = {"VNet": VNet, "EfficientUNet": EfficientUNet}[definition["_target_"].rsplit(".", 1)[-1]]
    return kind(**{name: value for name, value in definition.items() if name != "_target_"}).eval()


def state_of(bundle: Path, key: str, definition: dict) -> nn.Module:
    network = network_of(definition)
    network.load_state_dict(torch.load(bundle / "models" / "model.pt", weights_only=True)[key])
    return network


@pytest.fixture
def bundle(tmp_path) -> Path:
    return write_bundle(tmp_path / "hearts", SMALL_VNET, window=(8, 16, 12))


@pytest.fixture
def scan(tmp_path) -> Path:
    write_image(
        tmp_path / "scan.nii.gz",
        np.random.default_rng(0).normal(100, 20, (10, 18, 9)).astype(np.float32),
        affine=np.diag([-1.0, -1.0, 2.0, 1.0]),
    )
    return tmp_path / "scan.nii.gz"


@pytest.mark.parametrize(
    ("definition", "window"), [(SMALL_VNET, (8, 16, 12)), (FLAT_VNET, (16, 12)), (EFFICIENT, (64, 32))]
)
def test_torchscript_says_what_the_network_says_at_other_sizes_too(tmp_path, definition, window):
    bundle = write_bundle(tmp_path / "b", definition, window=window)
    done = export_bundle(bundle, tmp_path / "out", formats=["torchscript"])
    assert done.parity["torchscript"]["random"].largest <= 1e-4
    image = torch.randn(2, 1, *(32 * (1 + axis) for axis in range(len(window))))
    loaded = torch.jit.load(tmp_path / "out" / "model.ts")
    with torch.no_grad():
        torch.testing.assert_close(loaded(image), state_of(bundle, "model", definition)(image), atol=1e-4, rtol=0)
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["files"][0]["other_sizes"] is True


@pytest.mark.parametrize(
    ("definition", "window"), [(SMALL_VNET, (8, 16, 12)), (FLAT_VNET, (16, 12)), (EFFICIENT, (64, 32))]
)
def test_onnx_says_what_the_network_says_at_other_sizes_too(tmp_path, definition, window):
    pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    bundle = write_bundle(tmp_path / "b", definition, window=window)
    done = export_bundle(bundle, tmp_path / "out", formats=["onnx"])
    assert done.parity["onnx"]["random"].largest <= 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "out" / "model.onnx", providers=["CPUExecutionProvider"])
    image = torch.randn(2, 1, *(32 * (1 + axis) for axis in range(len(window))))
    with torch.no_grad():
        wanted = state_of(bundle, "model", definition)(image).numpy()
    np.testing.assert_allclose(session.run(None, {"image": image.numpy()})[0], wanted, atol=1e-4)
    known = session.get_modelmeta().custom_metadata_map
    assert json.loads(known["classes"]) == CLASSES
    assert known["weights_sha256"] == hashlib.sha256((bundle / "models" / "model.pt").read_bytes()).hexdigest()


def test_the_torchscript_file_says_what_it_is_and_monai_reads_it(bundle, tmp_path):
    from monai.data import load_net_with_metadata

    export_bundle(bundle, tmp_path / "out", formats=["torchscript"])
    _, known, _ = load_net_with_metadata(str(tmp_path / "out" / "model.ts"))
    assert known["classes"] == CLASSES
    assert known["window"] == [8, 16, 12]
    assert known["input"] == "image: float32 (batch, 1, i, j, k), prepared as MODEL_CARD.md says"


def test_of_two_networks_the_wanted_one_is_exported(tmp_path):
    bundle = write_bundle(tmp_path / "b", SMALL_VNET, window=(8, 16, 12), peer=True)
    image = torch.randn(1, 1, 8, 16, 12)
    for number, key in (("1", "model"), ("2", "peer")):
        export_bundle(bundle, tmp_path / number, formats=["torchscript"], network=number)
        with torch.no_grad():
            found = torch.jit.load(tmp_path / number / "model.ts")(image)
            torch.testing.assert_close(found, state_of(bundle, key, SMALL_VNET)(image), atol=1e-4, rtol=0)
        assert f"network {number} of 2 that were trained together" in (tmp_path / number / "MODEL_CARD.md").read_text()
    with pytest.raises(InputError, match="one network is exported, 1 or 2, not 'mean'"):
        export_bundle(bundle, tmp_path / "3", formats=["torchscript"], network="mean")


def test_real_input_is_prepared_as_for_a_prediction(bundle, scan, tmp_path, monkeypatch):
    seen = []
    forward = VNet.forward
    monkeypatch.setattr(
        VNet, "forward", lambda self, image: seen.append(image.detach().clone()) or forward(self, image)
    )
    done = export_bundle(bundle, tmp_path / "out", formats=["torchscript"], inputs=[scan])
    assert done.parity["torchscript"]["real"].windows == 3
    scaled = [window for window in seen if window.min() >= 0 and window.max() <= 3.001 and window.max() > 1]
    assert len(scaled) == 3  # scaled to 0..3, as the bundle's preprocessing says
    record = json.loads((tmp_path / "out" / "export.json").read_text())
    assert record["files"][0]["parity"]["real"]["shape"] == [1, 1, 8, 16, 12]


def test_a_network_that_is_another_one_in_the_file_is_refused_and_nothing_is_written(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("semi_med.export.run.runner", lambda form, content: lambda image: torch.zeros(1, 3, 8, 16, 12))
    with pytest.raises(InputError) as caught:
        export_bundle(bundle, tmp_path / "out", formats=["torchscript"])
    assert caught.value.code == "PARITY"
    assert "model.ts: on random input" in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_network_that_cannot_be_written_is_named(bundle, tmp_path, monkeypatch):
    monkeypatch.setattr("semi_med.export.formats._torchscript", lambda *given: 1 // 0)
    with pytest.raises(InputError, match=r"VNet: this network cannot be written as torchscript \(ZeroDivisionError"):
        export_bundle(bundle, tmp_path / "out", formats=["torchscript"])


def test_missing_packages_and_formats_are_said_before_any_work(bundle, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ResourceError, match=r"semi-med\[export\]"):
        export_bundle(tmp_path / "nowhere", tmp_path / "out")
    with pytest.raises(InputError, match="one of torchscript, onnx is wanted, not 'keras'"):
        export_bundle(tmp_path / "nowhere", tmp_path / "out", formats=["keras"])


def test_the_checksums_are_those_of_the_files(bundle, tmp_path):
    done = export_bundle(bundle, tmp_path / "out", formats=["torchscript"])
    lines = dict(reversed(line.split("  ")) for line in (tmp_path / "out" / "SHA256SUMS").read_text().splitlines())
    assert set(lines) == {"model.ts", "export.json", "MODEL_CARD.md"}
    assert {path.name for path in done.written} == {*lines, "SHA256SUMS"}
    for name, digest in lines.items():
        assert hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == digest


# ---- the model card --------------------------------------------------------------------------------------------------


def test_the_card_says_not_recorded_where_nothing_is_known(bundle, tmp_path):
    export_bundle(bundle, tmp_path / "out", formats=["torchscript"])
    text = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    for line in (
        "| what it does | not recorded |",
        "## Intended use\n\nnot recorded",
        "| terms of the data | not recorded |",
        "Settings: not recorded.",
        "Versions it was trained with: not recorded.",
        "Figures on held-out cases: not recorded.",
    ):
        assert line in text, line
    assert "| not checked | yes |" in text
    assert "None" not in text
    assert "onnx" not in text


def test_the_card_holds_what_the_files_of_the_bundle_say(bundle, tmp_path):
    metadata = json.loads((bundle / "configs" / "metadata.json").read_text())
    metadata |= {"name": "Hearts", "intended_use": "Research.", "data_source": "a study", "references": ["A, B"]}
    (bundle / "configs" / "metadata.json").write_text(json.dumps(metadata))
    settings = {"seed": 7, "data_list_file": "/data/Jane_Doe/list.json", "max_iterations": 400}
    versions = {"torch": "2.13.0"}
    record = {"settings": settings, "changed": {"max_iterations": 300}, "versions": versions}
    (bundle / "run.json").write_text(json.dumps(record))
    (bundle / "data_lists").mkdir()
    (bundle / "data_lists" / "list.json").write_text(json.dumps({"name": "x", "licence": "CC0", "labeled": [1, 2, 3]}))
    (bundle / "logs").mkdir()
    (bundle / "logs" / "validation.csv").write_text("iteration,mean_dice\n100,0.5\n200,0.75\n")
    (bundle / "LICENSE").write_text("\n  Apache License\n")
    rows = [
        {"class_name": "heart", "metric": "dice", "n": 9, "n_undefined": 1, "mean": 0.81234, "sd": 0.1, "low": 0.7}
        | {"high": 0.9},
        {"class_name": "heart", "metric": "hd95_mm", "n": 0, "n_undefined": 9, "mean": None, "sd": None, "low": None},
    ]
    (bundle / "table_summary.json").write_text(json.dumps({"cases": 9, "summary": rows}))
    export_bundle(bundle, tmp_path / "out", formats=["torchscript"])
    text = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    for line in (
        "# Model card: Hearts",
        "## Intended use\n\nResearch.",
        "| licence of the bundle | Apache License |",
        "| references | A, B |",
        "| licence | CC0 |",
        "| labeled cases of the list | 3 |",
        "| seed | 7 |",
        "| max_iterations | 300 |",
        "Versions it was trained with: torch 2.13.0.",
        "| heart | Dice | 0.8123 | 0.1000 | 0.7000 to 0.9000 | 9 | 1 |",
        "iteration 200, mean_dice 0.75.",
        "| ScaleIntensityd | maxv 3 |",
    ):
        assert line in text, line
    assert "HD95" not in text
    assert "Jane_Doe" not in text
    assert str(tmp_path) not in text


def test_figures_can_be_named_and_what_is_no_summary_is_refused(bundle, tmp_path):
    row = {"class_name": "lung", "metric": "dice", "n": 2, "n_undefined": 0, "mean": 0.5, "sd": None, "low": None}
    (tmp_path / "other.json").write_text(json.dumps({"cases": 2, "summary": [row]}))
    export_bundle(bundle, tmp_path / "out", formats=["torchscript"], metrics=[tmp_path / "other.json"])
    text = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "| lung | Dice | 0.5000 | not recorded | not recorded | 2 | 0 |" in text
    (tmp_path / "other.json").write_text("{}")
    with pytest.raises(InputError, match="a summary of semi-med evaluate is wanted"):
        export_bundle(bundle, tmp_path / "out", formats=["torchscript"], metrics=[tmp_path / "other.json"])


def test_a_cell_holds_any_text():
    assert cell("a | b\n<script> `x` [l](u)") == r"a \| b \<script\> \`x\` \[l\](u)"
    assert cell("max_iterations _x_") == r"max_iterations \_x\_"
    assert cell("") == "not recorded"


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_names_what_it_wrote(bundle, scan, tmp_path, monkeypatch, capsys):
    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["semi-med", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as left:
            cli.main()
        return left.value.code or 0, *capsys.readouterr()

    code, out, err = call(bundle, "--format", "torchscript", "-o", tmp_path / "out", "--input", scan)
    assert code == 0, err
    assert out.split() == [
        str(tmp_path / "out" / name) for name in ("model.ts", "export.json", "MODEL_CARD.md", "SHA256SUMS")
    ]
    assert "model.ts: real input differs by 0 at most" in err
    monkeypatch.setitem(sys.modules, "onnx", None)
    code, _, err = call(bundle, "--format", "torchscript", "onnx", "-o", tmp_path / "out")
    assert code == 3
    assert "ONNX needs the packages onnx and onnxruntime" in err


def test_an_exported_network_can_be_loaded_from_its_bytes():
    from semi_med.export.formats import runner

    stream = io.BytesIO()
    torch.jit.save(torch.jit.trace(nn.Conv2d(1, 3, 1), torch.zeros(1, 1, 4, 6)), stream)
    assert runner("torchscript", stream.getvalue())(torch.zeros(2, 1, 8, 6)).shape == (2, 3, 8, 6)
