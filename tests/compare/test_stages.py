"""What a job trains, and which runs are taken for it."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from pathlib import Path

import pytest
from compare_samples import train_stage

from semi_med.compare.planning import prepare_plan
from semi_med.compare.stages import (
    check_bundle,
    check_same_run,
    is_started,
    is_trained,
    minutes_of,
    progress_of,
    stages_of,
    write_origin,
)
from semi_med.errors import InputError, ProblemsError


@pytest.fixture
def stage(plan, ask):
    return stages_of(plan, plan.job("cotrain_1_seed2"), ask().folder)[0]


def test_a_method_and_the_floor_differ_in_nothing_but_bundle_and_folder(plan, ask, data):
    first, second = (
        stages_of(plan, plan.job(f"{method}_1_seed2"), ask().folder)[0] for method in ("cotrain", "supervised")
    )
    own = {"output_dir", "monitor_pseudo_labels"}
    assert {n: v for n, v in first.settings.items() if n not in own} == {
        n: v for n, v in second.settings.items() if n not in own
    }
    assert (first.settings["max_iterations"], first.settings["seed"]) == (20, 2)
    assert first.settings["dataset_dir"] == data
    assert first.settings["data_list_file"] == ask().folder / "lists" / "labeled_1_seed2.json"


def test_pseudo_labels_are_watched_where_there_are_any(plan, ask):
    found = {job.method: stages_of(plan, job, ask().folder)[0].settings for job in plan.jobs}
    assert found["cotrain"]["monitor_pseudo_labels"] is True
    assert "monitor_pseudo_labels" not in found["supervised"]


def test_labels_that_are_not_all_known_are_not_watched(ask, data):
    tree = json.loads((data / "data_list.json").read_text())
    del tree["unlabeled"][0]["monitor_label"]
    (data / "data_list.json").write_text(json.dumps(tree))
    plan = prepare_plan(ask())
    assert "monitor_pseudo_labels" not in stages_of(plan, plan.job("cotrain_1_seed1"), ask().folder)[0].settings
    assert plan.notes[0].startswith("1 unlabelled scans have no label to watch")


def test_settings_go_to_all_methods_or_to_one(ask):
    plan = prepare_plan(ask(settings=("learning_rate=0.5", "cotrain:learning_rate=0.1", "cotrain:ramp_share=1")))
    found = {job.method: stages_of(plan, job, ask().folder)[0].settings for job in plan.jobs}
    assert (found["cotrain"]["learning_rate"], found["cotrain"]["ramp_share"]) == ("0.1", "1")
    assert found["supervised"]["learning_rate"] == "0.5"
    assert "ramp_share" not in found["supervised"]


def test_data_may_lie_elsewhere_on_this_machine(plan, ask):
    stages = stages_of(plan, plan.job("cotrain_1_seed1"), ask().folder, dataset_dir=Path("/scratch/data"))
    assert stages[0].settings["dataset_dir"] == Path("/scratch/data")


# ---- an earlier run ------------------------------------------------------------------------------------------------


@pytest.fixture
def two(ask):
    """Co-training that starts from a supervised run, with settings for both and for one."""
    plan = prepare_plan(ask(settings=("cotrain:learning_rate=0.1", "cotrain:ramp_share=1", "batch_size=4")))
    job = dataclasses.replace(
        plan.job("cotrain_1_seed1"),
        iterations=15,
        before="supervised",
        before_iterations=5,
        before_setting="pretrained",
    )
    return stages_of(plan, job, ask().folder)


def test_the_earlier_run_comes_first_and_its_model_is_started_from(two):
    first, second = two
    assert (first.method, first.iterations, second.method, second.iterations) == ("supervised", 5, "cotrain", 15)
    assert first.folder == second.folder / "before"
    assert second.settings["pretrained"] == first.folder / "models" / "model.pt"
    assert "pretrained" not in first.settings


def test_both_have_the_same_list_and_seed(two):
    for name in ("data_list_file", "seed", "dataset_dir", "batch_size"):
        assert two[0].settings[name] == two[1].settings[name]


def test_the_second_run_of_bcp_goes_on_in_the_stream_of_batches(ask):
    plan = prepare_plan(ask(methods=("bcp",)))
    first, second = stages_of(plan, plan.job("bcp_1_seed1"), ask().folder)
    assert "first_iteration" not in first.settings
    assert second.settings["first_iteration"] == first.iterations == 4


def test_bundles_that_were_planned_without_that_setting_run_as_they_did(ask):
    plan = prepare_plan(ask(methods=("bcp",)))
    config = ask().folder / "bundles" / "bcp_phantom" / "configs" / "train.json"
    config.write_text(config.read_text().replace('"first_iteration": 0,', ""))
    assert "first_iteration" not in stages_of(plan, plan.job("bcp_1_seed1"), ask().folder)[1].settings


def test_settings_of_the_method_go_to_its_earlier_run_where_it_has_them(two):
    assert two[0].settings["learning_rate"] == two[1].settings["learning_rate"] == "0.1"
    assert ("ramp_share" in two[0].settings, "ramp_share" in two[1].settings) == (False, True)


def test_training_times_are_added(two):
    train_stage(two[0])
    assert minutes_of(two) != minutes_of(two)  # NaN: the second one has not begun
    train_stage(two[1])
    assert minutes_of(two) == pytest.approx((5 * 3 + 15 * 3) / 60)


# ---- is it done? ---------------------------------------------------------------------------------------------------


def test_a_run_is_done_at_its_last_iteration(stage):
    assert not is_trained(stage) and not is_started(stage)
    train_stage(stage, iterations=19)
    assert not is_trained(stage) and is_started(stage)
    train_stage(stage)
    assert is_trained(stage)


def test_a_run_without_its_model_is_not_done(stage):
    train_stage(stage)
    stage.model.unlink()
    assert not is_trained(stage)


def test_progress_is_read_from_the_curve_and_half_a_line_does_not_matter(stage):
    assert progress_of(stage) == (0, 0.0)
    train_stage(stage, iterations=7)
    with (stage.folder / "logs" / "train.csv").open("a") as log:
        log.write("1")
    assert progress_of(stage)[1] == 21.0


# ---- is it the same run? -------------------------------------------------------------------------------------------


def rewrite(stage, part: str, **values: object) -> None:
    path = stage.folder / "run.json"
    record = json.loads(path.read_text())
    record[part] |= values
    path.write_text(json.dumps({**record, part: {n: v for n, v in record[part].items() if v is not None}}))


def test_a_run_of_the_same_settings_is_taken_wherever_it_was_made(stage):
    train_stage(stage)
    rewrite(
        stage,
        "changed",
        dataset_dir="/elsewhere/data",
        data_list_file="/elsewhere/lists/labeled_1_seed2.json",
        output_dir="/elsewhere/run",
        device="cuda:0",
    )
    rewrite(stage, "settings", data_list_file="/elsewhere/lists/labeled_1_seed2.json")
    check_same_run(stage)


@pytest.mark.parametrize(
    ("part", "values", "text"),
    [
        ("settings", {"max_iterations": 21}, "max_iterations: 20 in the plan, 21 in this run"),
        ("settings", {"seed": 1}, "seed: 2 in the plan, 1 in this run"),
        ("settings", {"labeled": 7}, "labeled: .* in the plan, 7 in this run"),
        ("data", {"cases_sha256": "0" * 64}, "cases of data_list_file: .* in the plan, 000000000000 in this run"),
        ("data", {"files_sha256": "0" * 64}, "names and sizes.*: .* in the plan, 000000000000 in this run"),
        ("changed", {"learning_rate": 0.5}, "learning_rate: 0.03 in the plan, 0.5 in this run"),
        ("changed", {"method#cutmix": "false"}, "method#cutmix: True in the plan, False in this run"),
        ("changed", {"monitor_pseudo_labels": None}, "monitor_pseudo_labels: True in the plan, False in this run"),
    ],
)
def test_a_run_of_other_settings_is_refused_with_what_differs(stage, part, values, text):
    train_stage(stage)
    rewrite(stage, part, **values)
    with pytest.raises(ProblemsError, match=text) as caught:
        check_same_run(stage)
    assert len(caught.value.problems) == 1


def test_a_run_of_another_method_is_refused(stage, plan, ask):
    train_stage(stages_of(plan, plan.job("supervised_1_seed2"), ask().folder)[0])
    (ask().folder / "runs" / "supervised_1_seed2").rename(stage.folder)
    with pytest.raises(ProblemsError, match="bundle: cotrain_phantom in the plan, supervised_phantom in this run"):
        check_same_run(stage)


@pytest.mark.parametrize("text", ["[16, 16, 16]", "[16,16,16]", "(16,16,16)"])
def test_one_value_written_in_two_ways_is_the_same(ask, text):
    plan = prepare_plan(ask(settings=("crop_size=[16,16,16]", "channels_last=TRUE", "learning_rate=1e-2")))
    stage = stages_of(plan, plan.job("cotrain_1_seed1"), ask().folder)[0]
    train_stage(stage)
    rewrite(stage, "changed", crop_size=text, channels_last=True, learning_rate=0.01)
    check_same_run(stage)


def test_a_setting_given_as_its_default_need_not_be_among_the_changes(ask):
    plan = prepare_plan(ask(settings=("batch_size=2",)))
    stage = stages_of(plan, plan.job("cotrain_1_seed1"), ask().folder)[0]
    train_stage(stage)
    rewrite(stage, "changed", batch_size=None)
    check_same_run(stage)


def test_a_list_of_the_same_name_and_other_cases_is_found(stage):
    write_origin(stage)
    train_stage(stage)
    check_same_run(stage)
    text = stage.data_list.read_text()
    stage.data_list.write_text(text.replace('"subject D"', '"subject F"'))
    with pytest.raises(ProblemsError, match="cases of data_list_file"):
        check_same_run(stage)


def test_how_a_list_is_called_and_described_does_not_matter(stage):
    train_stage(stage)
    rewrite(stage, "settings", data_list_file="/elsewhere/mine.json")
    tree = json.loads(stage.data_list.read_text())
    stage.data_list.write_text(json.dumps({**tree, "name": "y", "description": "another"}, indent=1))
    check_same_run(stage)


def as_before(stage) -> None:
    """The run as an earlier version left it: it does not say which cases it saw."""
    path = stage.folder / "run.json"
    record = json.loads(path.read_text())
    del record["data"]
    path.write_text(json.dumps(record))


def test_a_run_of_an_earlier_version_is_compared_by_the_list_that_it_names(stage, tmp_path):
    train_stage(stage)
    as_before(stage)
    check_same_run(stage)
    other = tmp_path / "elsewhere" / stage.data_list.name
    other.parent.mkdir()
    other.write_text(stage.data_list.read_text().replace('"subject D"', '"subject F"'))
    rewrite(stage, "settings", data_list_file=str(other))
    with pytest.raises(ProblemsError, match="cases of data_list_file"):
        check_same_run(stage)


def test_a_run_of_which_only_the_name_of_its_list_is_known_is_refused(stage):
    train_stage(stage)
    as_before(stage)
    rewrite(stage, "settings", data_list_file=f"/elsewhere/{stage.data_list.name}")
    with pytest.raises(ProblemsError, match=r"is not there to be compared.* Put that list where it says"):
        check_same_run(stage)


def test_a_run_that_an_earlier_version_of_compare_began_is_taken(stage):
    train_stage(stage)
    as_before(stage)
    rewrite(stage, "settings", data_list_file=f"/elsewhere/{stage.data_list.name}")
    digest = hashlib.sha256(stage.data_list.read_bytes()).hexdigest()
    (stage.folder / "compare.json").write_text(json.dumps({"data_list_sha256": digest, "recipe": stage.recipe}))
    check_same_run(stage)


def test_data_that_were_prepared_in_another_way_are_found(stage, data):
    train_stage(stage)
    (data / "images" / "d.nii.gz").write_bytes(b"longer")
    with pytest.raises(ProblemsError, match="names and sizes"):
        check_same_run(stage)


def test_scans_of_the_test_may_change_without_touching_what_was_trained(stage, data):
    train_stage(stage)
    (data / "images" / "t1.nii.gz").write_bytes(b"longer")
    check_same_run(stage)


def test_a_run_that_says_nothing_about_itself_is_refused(stage):
    train_stage(stage)
    (stage.folder / "run.json").unlink()
    with pytest.raises(InputError, match="it cannot be told what was trained here"):
        check_same_run(stage)


def test_a_bundle_changed_by_hand_is_refused(stage):
    check_bundle(stage)
    config = stage.bundle / "configs" / "train.json"
    config.write_text(config.read_text().replace('"learning_rate": 0.03', '"learning_rate": 0.04'))
    with pytest.raises(InputError, match="changed after the comparison was planned"):
        check_bundle(stage)
