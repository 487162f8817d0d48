"""`semi-med prepare` of pictures: every data set has its command, options reach the preparation."""

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from semi_med.cli_prepare import app
from semi_med.datasets import camus, cityscapes, covid19_ct, isic2017, lgg, pascal_voc, refuge, scr_jsrt
from semi_med.datasets.prepared import PreparedDataset

COMMANDS = [
    ("camus", camus, ["--size", "320"], {"size": 320}),
    ("refuge", refuge, ["--size", "320"], {"size": 320}),
    ("isic2017", isic2017, [], {"size": None}),
    ("scr_jsrt", scr_jsrt, ["--structures", "5", "--size", "2048"], {"structures": 5, "size": 2048}),
    ("lgg", lgg, ["--variant", "buda"], {"variant": "buda"}),
    ("covid19_ct", covid19_ct, ["--size", "256"], {"size": 256}),
    ("cityscapes", cityscapes, ["--extra"], {"extra": True}),
    ("pascal_voc", pascal_voc, ["--workers", "3"], {"workers": 3}),
]


@pytest.mark.parametrize(("name", "module", "options", "expected"), COMMANDS, ids=[each[0] for each in COMMANDS])
def test_options_reach_the_preparation(monkeypatch, tmp_path, name, module, options, expected):
    seen = {}

    def prepare(source, target, **settings):
        seen.update(settings)
        return PreparedDataset(target, ("A",), ("A",), ())

    monkeypatch.setattr(module, "prepare", prepare)
    result = CliRunner().invoke(app, [name, str(tmp_path), str(tmp_path / "target"), *options])
    assert result.exit_code == 0, result.output
    assert expected.items() <= seen.items()
    assert "1 cases (1 written" in result.output


def test_a_folder_is_prepared_from_the_command_line(tmp_path):
    Image.fromarray(np.arange(90, dtype=np.uint8).reshape(5, 6, 3)).save(tmp_path / "Image_01L.jpg")
    Image.fromarray(np.eye(5, 6, dtype=bool)).save(tmp_path / "Image_01L_1stHO.png")
    result = CliRunner().invoke(app, ["chase_db1", str(tmp_path), str(tmp_path / "target")])
    assert result.exit_code == 0, result.output
    assert (tmp_path / "target/images/Image_01L.png").is_file()
