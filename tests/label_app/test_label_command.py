"""`semi-med label`: what it refuses, and what it hands to MONAI Label."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from semi_med import cli
from semi_med.errors import InputError
from semi_med.label_app import serve
from semi_med.label_app.serve import Request, environment


@pytest.fixture
def call(monkeypatch, capsys):
    """Run the command in this process, as if MONAI Label were, or were not, there; nothing is served."""

    def run(*arguments: object, installed: bool = True) -> tuple[int, str]:
        spec = importlib.util.spec_from_loader("monailabel", None) if installed else None
        monkeypatch.setattr(importlib.util, "find_spec", lambda name, *more: spec if name == "monailabel" else 1 / 0)
        monkeypatch.setattr(sys, "argv", ["semi-med", "label", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), capsys.readouterr().err

    return run


def test_without_monai_label_it_says_how_to_get_it(call, tmp_path):
    code, text = call("--studies", tmp_path, installed=False)
    assert code == 3
    assert "Run `make label`, then `.venv-label/bin/semi-med label` with the same options" in text


def test_others_may_not_reach_it_without_a_token(call, tmp_path):
    code, text = call("--studies", tmp_path, "--host", "0.0.0.0")
    assert (code, "without a token the server listens on this machine only" in text) == (2, True)


def test_a_setting_that_no_bundle_has_is_refused_at_the_start(call, tmp_path, bundle_folder):
    code, text = call("--studies", tmp_path, "--bundle", bundle_folder, "--set", "crop_sise=[8,8,8]")
    assert (code, "there is no setting crop_sise. Did you mean --set crop_size?" in text) == (2, True)


def test_a_study_that_is_not_there_is_named(call, tmp_path):
    code, text = call("--studies", tmp_path / "gone")
    assert code == 2
    assert f"{tmp_path / 'gone'}: the folder of the study does not exist. Make it" in text


def test_a_bundle_that_is_none_is_refused_before_anything_is_served(call, tmp_path):
    code, text = call("--studies", tmp_path, "--bundle", tmp_path)
    assert (code, "this file of the bundle is missing" in text) == (2, True)


def test_every_process_that_monai_label_starts_knows_what_is_served(tmp_path, bundle_folder, supervised_folder):
    given = environment(
        Request(
            studies=str(tmp_path),
            bundles=[bundle_folder, supervised_folder],
            iterations=30,
            device="cpu",
            settings={"crop_size": "[8,8,8]"},
        )
    )
    conf = json.loads(given["MONAI_LABEL_APP_CONF"])
    assert conf == {
        "bundles": f"{bundle_folder}{os.pathsep}{supervised_folder}",
        "iterations": "30",
        "device": "cpu",
        "settings": '{"crop_size": "[8,8,8]"}',
    }
    assert Path(given["MONAI_LABEL_APP_DIR"], "main.py").is_file()
    assert Path(given["PYTHONPATH"].split(os.pathsep)[0], "semi_med").is_dir()


def test_the_models_of_a_remote_study_want_a_folder(tmp_path):
    with pytest.raises(InputError, match="Name one with --work"):
        environment(Request(studies="http://127.0.0.1:8042/dicom-web"))
    given = environment(Request(studies="http://127.0.0.1:8042/dicom-web", work=tmp_path / "work"))
    assert given["MONAI_LABEL_SESSION_PATH"] == str(tmp_path / "work" / "sessions")


def test_a_token_is_not_shown():
    assert "secret" not in repr(serve.Request(studies="x", token="secret"))
