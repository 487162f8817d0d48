"""Rounds of a model: which one answers, and what is kept."""

from __future__ import annotations

import json

import pytest

from semi_med.errors import InputError
from semi_med.label_app.models import Bundle, Model, models_of


def finish(model: Model) -> str:
    """A round with a model, published."""
    folder = model.new_round()
    for name in ("models/model.pt", "checkpoints/iteration_1.pt", "round.json"):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text("{}")
    model.publish(folder)
    return folder.name


def test_before_a_training_the_person_is_told_what_to_do(model):
    with pytest.raises(InputError, match=r"no model yet\. Label one scan, submit it and press Train") as caught:
        model.predictor()
    assert caught.value.code == "NO_MODEL"
    assert model.version == ""


def test_a_bundle_that_has_a_model_answers_before_the_first_round(model, bundle_folder, tmp_path):
    import shutil

    copy = shutil.copytree(bundle_folder, tmp_path / "trained")
    (copy / "models").mkdir()
    (copy / "models" / "model.pt").write_bytes(b"")
    trained = Model("trained", Bundle.read(copy), tmp_path / "work" / "trained")
    assert (trained.current, trained.version) == (copy, "bundle")
    assert finish(trained) == trained.version == "0001"


def test_the_round_that_is_published_answers(model):
    assert [finish(model), finish(model)] == ["0001", "0002"]
    assert model.version == "0002"
    assert model.weights() == model.folder / "rounds" / "0002" / "models" / "model.pt"


def test_there_is_a_model_at_every_moment_of_a_publication(model, monkeypatch):
    from pathlib import Path

    finish(model)
    seen = []
    replace = Path.replace
    monkeypatch.setattr(
        Path, "replace", lambda path, target: (seen.append(model.weights().is_file()), replace(path, target))
    )
    finish(model)
    assert seen == [True]
    assert model.weights().is_file()


def test_an_unfinished_round_changes_nothing_and_goes_with_the_next(model):
    finish(model)
    stopped = model.new_round()
    assert model.version == "0001"
    assert finish(model) == "0003"
    assert not stopped.exists()


def test_models_of_old_rounds_and_checkpoints_are_removed_records_stay(model):
    names = [finish(model) for _ in range(5)]
    with_models = [name for name in names if (model.folder / "rounds" / name / "models").is_dir()]
    assert with_models == names[-3:]
    assert all((model.folder / "rounds" / name / "round.json").is_file() for name in names)
    assert not list(model.folder.glob("rounds/*/checkpoints"))


def test_a_bundle_tells_what_the_loop_must_know(bundle_folder, supervised_folder):
    two, one = Bundle.read(bundle_folder), Bundle.read(supervised_folder)
    assert two.labels == {"anterior hippocampus": 1, "posterior hippocampus": 2}
    assert (two.two_networks, two.needs_unlabeled, two.dimensions) == (True, True, 3)
    assert (one.two_networks, one.needs_unlabeled) == (False, False)


def test_a_flat_bundle_with_numbers_of_its_own_is_understood(tmp_path):
    from semi_med.recipes.compose import compose

    folder = compose("supervised", "lgg", tmp_path / "supervised_lgg")
    inference = json.loads((folder / "configs" / "inference.json").read_text())
    (folder / "configs" / "inference.json").write_text(json.dumps({**inference, "label_values": [0, 255]}))
    found = Bundle.read(folder)
    assert (found.dimensions, found.values) == (2, (0, 255))
    assert list(found.labels.values()) == [255]


def test_a_model_has_a_name_that_requests_can_have_and_of_its_own(bundle_folder, tmp_path):
    (tmp_path / "my bundle").symlink_to(bundle_folder)
    with pytest.raises(InputError, match="no request can ask for 'my bundle'"):
        models_of([tmp_path / "my bundle"], str(tmp_path))
    with pytest.raises(InputError, match="two bundles are called cotrain_hippocampus"):
        models_of([bundle_folder, bundle_folder], str(tmp_path))


def test_a_folder_that_is_no_bundle_is_refused_with_what_is_missing(tmp_path):
    with pytest.raises(InputError, match=r"train\.json: this file of the bundle is missing"):
        Bundle.read(tmp_path)


def test_a_foreign_bundle_is_refused(tmp_path):
    (tmp_path / "configs").mkdir()
    for name in ("train", "inference", "metadata"):
        (tmp_path / "configs" / f"{name}.json").write_text(json.dumps({"network_def": {}}))
    with pytest.raises(InputError, match="no bundle that semi-med wrote"):
        Bundle.read(tmp_path)
