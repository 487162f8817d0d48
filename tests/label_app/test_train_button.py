"""What Train does: the command, what a client may wish, what is told, and what happens when it fails."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from label_samples import Store

pytest.importorskip("monailabel")

from semi_med import launch
from semi_med.errors import InputError, ResourceError, SemiMedError, TrainingError
from semi_med.label_app.study import HeldOut
from semi_med.label_app.train import Train

# stands for a training: writes what one writes, at once
STAND_IN = """
import json, pathlib, sys, time
out = pathlib.Path(sys.argv[1])
(out / "logs").mkdir()
(out / "run.json").write_text(json.dumps({"settings": {"max_iterations": 40, "labeled": 2, "unlabeled": 6}}))
(out / "logs" / "train.csv").write_text("iteration,seconds,learning_rate,loss\\n1,1.0,0.1,2.0\\n40,9.5,0.1,0.25\\n")
(out / "logs" / "validation.csv").write_text("iteration,mean_dice,dice_1\\n20,0.5,0.5\\n40,0.75,0.7\\n")
%s
(out / "models").mkdir()
(out / "models" / "model.pt").write_bytes(b"weights")
"""


@pytest.fixture
def train(model, tmp_path) -> Train:
    return Train(model, HeldOut(tmp_path / "sides.json"), settings={"crop_size": "[8,8,8]"}, iterations=40)


@pytest.fixture
def commands(monkeypatch):
    """Let a stand-in train; tells what would have been run."""
    seen: list[dict] = []

    def replace(middle: str = "") -> list[dict]:
        def command(bundle, *, settings):
            seen.append({"bundle": bundle, **settings})
            return [sys.executable, "-c", STAND_IN % middle, str(settings["output_dir"])]

        monkeypatch.setattr(launch, "training_command", command)
        return seen

    return replace


def test_a_round_is_trained_once_and_answers(train, study, commands):
    seen = commands()
    result = train({"model": "hippo", "run_id": "", "max_iterations": "", "seed": 3}, Store(study, {"scan_0": {}}))
    assert len(seen) == 1
    assert (seen[0]["max_iterations"], seen[0]["seed"], seen[0]["crop_size"]) == (40, 3, "[8,8,8]")
    assert result["round"] == train.model.version == "0001"
    assert (result["labeled"], result["unlabeled"], result["best_metric"]) == (1, 7, 0.75)


def test_what_is_no_wish_of_a_client_is_not_looked_at(train, study, commands):
    seen = commands()
    train({"device": "cuda:9", "output_dir": "/", "max_epochs": 7, "train#trainer": "x"}, Store(study, {"scan_0": {}}))
    assert seen[0]["device"] == "cpu"
    assert seen[0]["output_dir"] == train.model.rounds()[0]
    assert not {"max_epochs", "train#trainer"} & set(seen[0])


@pytest.mark.parametrize("wrong", [0, -1, 10**9, "many", True, 1e400, [3]])
def test_an_impossible_number_of_iterations_is_refused_before_anything_is_written(train, study, wrong):
    with pytest.raises(InputError, match="max_iterations: a whole number from 1 to 1000000"):
        train({"max_iterations": wrong}, Store(study, {"scan_0": {}}))
    assert train.model.rounds() == []


def test_a_bundle_takes_the_settings_that_it_has(train, study, commands):
    seen = commands()
    train.settings = {"network_def#base_filters": "4", "unlabeled_batch_size": "1", "not_of_this_one": "1"}
    train({}, Store(study, {"scan_0": {}}))
    assert (seen[0]["network_def#base_filters"], seen[0]["unlabeled_batch_size"]) == ("4", "1")
    assert "not_of_this_one" not in seen[0]


def test_a_round_goes_on_from_the_last_model_unless_told_otherwise(train, study, commands):
    seen = commands()
    store = Store(study, {"scan_0": {}})
    for wish in ({}, {}, {"start_from_last_model": "false"}):
        train(wish, store)
    first = train.model.folder / "rounds" / "0001" / "models" / "model.pt"
    assert [one["pretrained"] for one in seen] == ["null", first, "null"]


def test_a_round_with_other_networks_begins_anew(train, study, commands):
    seen = commands()
    store = Store(study, {"scan_0": {}})
    for levels in (3, 4, 4):
        train.settings = {"network_def#levels": levels}
        train({}, store)
    second = train.model.folder / "rounds" / "0002" / "models" / "model.pt"
    assert [one["pretrained"] for one in seen] == ["null", "null", second]


def test_a_model_in_the_bundle_is_gone_on_from_if_its_networks_are_the_bundles(train, study, commands, tmp_path):
    seen = commands()
    train.model.bundle = replace(train.model.bundle, folder=shutil.copytree(train.model.bundle.folder, tmp_path / "b"))
    weights = train.model.bundle.folder / "models" / "model.pt"
    weights.parent.mkdir(exist_ok=True)
    weights.write_bytes(b"")
    for other in ({}, {"network_def": {"levels": 9}}):
        weights.with_suffix(".json").write_text(json.dumps(other))
        (train.model.folder / "current").unlink(missing_ok=True)
        train({}, Store(study, {"scan_0": {}}))
    assert [one["pretrained"] for one in seen] == [weights, "null"]


def test_a_training_that_fails_says_why_and_the_old_model_answers(train, study, commands):
    store = Store(study, {"scan_0": {}})
    commands()
    train({}, store)
    commands('print("error: the data cannot be trained on: 1 problem found\\n  - a.nii.gz is cut off"); sys.exit(2)')
    with pytest.raises(
        SemiMedError, match=r"code 2: the data cannot be trained on: 1 problem found   - a.nii.gz is cut"
    ):
        train({}, store)
    assert train.model.version == "0001"


def test_a_training_without_a_model_is_a_failure(train, study, commands):
    commands("sys.exit(0)")
    with pytest.raises(SemiMedError, match="ended with code 0: it said nothing"):
        train({}, Store(study, {"scan_0": {}}))
    assert train.model.current is None


def test_a_second_training_of_a_model_is_refused_while_one_runs(train, study, commands):
    commands("time.sleep(60)")
    store = Store(study, {"scan_0": {}})
    failed: list[BaseException] = []

    def first() -> None:
        try:
            train({}, store)
        except BaseException as error:
            failed.append(error)

    thread = threading.Thread(target=first)
    thread.start()
    run = train.model.folder / "rounds" / "0001" / "run.json"
    while not run.is_file():
        time.sleep(0.05)
    with pytest.raises(ResourceError, match="this model is being trained"):
        train({}, store)
    for child in Path(f"/proc/{os.getpid()}/task").glob("*/children"):
        for number in child.read_text().split():
            if str(run.parent) in Path(f"/proc/{number}/cmdline").read_text():
                os.kill(int(number), signal.SIGKILL)
    thread.join(timeout=20)
    assert "code -9" in str(failed[0])


def test_a_training_ends_with_the_server_that_was_killed(train, study, commands, monkeypatch):
    commands("time.sleep(60)")
    train.ends_with_parent = True
    parents = iter([1234, 1234])
    monkeypatch.setattr(os, "getppid", lambda: next(parents, 1))
    with pytest.raises(TrainingError, match="the server has ended"):
        train({}, Store(study, {"scan_0": {}}))
    assert train.model.current is None


def test_progress_is_told_under_the_names_that_clients_look_for(train, study, commands):
    commands()
    assert train.stats() == {}
    train({}, Store(study, {"scan_0": {}}))
    stats = train.stats()
    assert (stats["epoch"], stats["total_epochs"], stats["iteration"]) == (20, 20, 40)
    assert stats["train"] == {"loss": 0.25}
    assert stats["eval"] == {
        "key_metric_name": "mean_dice",
        "best_metric": 0.75,
        "metrics": {"mean_dice": 0.75, "dice_1": 0.7},
    }
    assert stats["total_time"] == "0:00:09"
    json.dumps(stats, allow_nan=False)


def test_a_round_that_has_begun_shows_the_accuracy_of_the_one_before(train, study, commands):
    commands()
    train({}, Store(study, {"scan_0": {}}))
    train.model.new_round()
    stats = train.stats()
    assert (stats["round"], stats["iteration"], stats["best_metric"]) == ("0002", 0, 0.75)
    assert "total_time" not in stats


def test_a_loss_that_is_not_finite_is_left_out(train, study, commands):
    commands('(out / "logs" / "train.csv").write_text("iteration,seconds,loss\\n1,1.0,nan\\n")')
    train({}, Store(study, {"scan_0": {}}))
    json.dumps(train.stats(), allow_nan=False)
