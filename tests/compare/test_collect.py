"""What the page says that a run was trained with."""

from __future__ import annotations

import json
from pathlib import Path

from semi_med.compare.collect import _of_config, settings_of
from semi_med.compare.plan import Plan
from semi_med.compare.stages import stages_of
from semi_med.recipes.compose import compose


def test_the_numbers_of_a_recipe_are_told_and_its_expressions_are_not(tmp_path: Path) -> None:
    found = _of_config(compose("uamt", "hippocampus", tmp_path / "bundle") / "configs" / "train.json")
    wanted = {
        "learning_rate": 0.03,
        "crop_size": [32, 48, 32],
        "ramp_share": 1.0,
        "network_def": "semi_med.networks.VNet",
        "network_def#dropout": 0.1,
        "method": "semi_med.methods.UAMT",
        "method#passes": 8,
        "optimizer#momentum": 0.9,
        "unlabeled_augment#rotate": 15.0,
        "train#unlabeled_view#intensity_on": "image",
    }
    assert {name: found.get(name) for name in wanted} == wanted
    assert not any(str(value).startswith(("$", "@", "%")) for value in found.values())


def test_what_was_changed_wins_and_no_path_is_told(plan: Plan, tmp_path: Path) -> None:
    job, folder = plan.jobs[0], tmp_path / "out"
    run = stages_of(plan, job, folder)[-1].folder
    (run / "configs").mkdir(parents=True)
    (run / "configs" / "train.json").write_text(json.dumps({"learning_rate": 0.01, "batch_size": 2, "odd": None}))
    changed = {"learning_rate": 0.5, "cache_dir": "/a/b", "train#handlers#0#output_dir": "c", "odd": "/home/x/y"}
    (run / "run.json").write_text(json.dumps({"settings": {"amp": False}, "changed": changed}))
    assert settings_of(plan, job, folder) == {
        "learning_rate": 0.5,
        "batch_size": 2,
        "amp": False,
        "data list": job.data_list,
    }
