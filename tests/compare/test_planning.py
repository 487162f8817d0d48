"""The plan: which jobs, which lists, what is frozen, what may be added, what is refused."""

from __future__ import annotations

import json
import shlex
import shutil
from pathlib import Path

import pytest
from compare_samples import entry, write_base

from semi_med.compare import planning
from semi_med.compare.lists import Base, make_lists, shows_pictures
from semi_med.compare.plan import FLOOR, about, make_jobs, read_plan, with_earlier
from semi_med.compare.planning import Request, prepare_plan
from semi_med.data.data_list import DataList, load_data_list
from semi_med.errors import InputError, ProblemsError


def names(plan) -> list[str]:
    return [job.name for job in plan.jobs]


# ---- jobs ----------------------------------------------------------------------------------------------------------


def test_floor_and_ceiling_are_always_planned_seed_by_seed(plan):
    assert names(plan) == [
        *("supervised_1_seed1", "supervised_2_seed1", "supervised_all_seed1", "cotrain_1_seed1", "cotrain_2_seed1"),
        *("cotrain_1_seed2", "cotrain_2_seed2", "supervised_1_seed2", "supervised_2_seed2", "supervised_all_seed2"),
    ]


def test_stopped_at_any_time_before_the_last_seed_every_method_has_its_floor():
    lists = {(n, seed): "x" for n in (4, 8, None) for seed in (1, 2, 3)}
    jobs = make_jobs(["supervised", "mean_teacher", "cotrain"], lists, iterations=10)
    for place, job in enumerate(jobs):
        if job.method != FLOOR and job.seed < 3:
            done = {(one.method, one.labeled, one.seed) for one in jobs[:place]}
            assert {(FLOOR, job.labeled, job.seed), (FLOOR, None, job.seed)} <= done


def test_the_end_of_the_work_is_made_of_short_jobs():
    lists = {(n, seed): "x" for n in (4, 8, None) for seed in (1, 2)}
    jobs = make_jobs(["supervised", "mean_teacher", "cotrain"], lists, iterations=10)
    assert [job.method for job in jobs if job.seed == 2] == ["cotrain"] * 2 + ["mean_teacher"] * 2 + [FLOOR] * 3


def test_of_one_seed_the_floor_comes_first_and_the_longest_method_next():
    lists = {(n, 1): "x" for n in (4, None)}
    jobs = make_jobs(["supervised", "mean_teacher", "cotrain"], lists, iterations=10)
    assert [job.method for job in jobs] == [FLOOR, FLOOR, "cotrain", "mean_teacher"]


def test_the_ceiling_can_be_left_out(ask):
    assert not any("_all_" in name for name in names(prepare_plan(ask(all_labels=False))))


def test_there_is_no_ceiling_where_no_more_labels_are_known(ask):
    plan = prepare_plan(ask(methods=("supervised",), labeled=(5,)))
    assert names(plan) == ["supervised_5_seed1", "supervised_5_seed2"]
    assert "No more than 5 labelled subjects are known" in plan.notes[0]


def test_each_line_of_the_jobs_runs_its_job_from_anywhere(plan, tmp_path):
    lines = (tmp_path / "out" / "jobs.txt").read_text().splitlines()
    for line, job in zip(lines, plan.jobs, strict=True):
        *program, verb, _, name, _, folder = shlex.split(line)
        assert Path(program[0]).is_absolute()
        assert (verb, name, folder) == ("compare", job.name, str(tmp_path / "out"))


def test_a_folder_with_a_space_is_quoted(ask, tmp_path):
    prepare_plan(ask(folder=tmp_path / "my out"))
    line = (tmp_path / "my out" / "jobs.txt").read_text().splitlines()[0]
    assert shlex.split(line)[-1] == str(tmp_path / "my out")


def test_a_job_is_found_by_name_and_by_number_from_one(plan):
    assert plan.job("2") == plan.job("supervised_2_seed1") == plan.jobs[1]


@pytest.mark.parametrize(
    ("wanted", "text"), [("0", "1 to 10"), ("11", "1 to 10"), ("cotrain_1_sed2", "Did you mean cotrain_1_seed2")]
)
def test_a_job_that_is_not_there_is_refused(plan, wanted, text):
    with pytest.raises(InputError, match=text):
        plan.job(wanted)


@pytest.fixture
def pretraining(monkeypatch):
    """Co-training as if it began with a pre-training of a quarter of the iterations."""

    def said(method):
        return {**about(method), "before": None} | (
            {"before": {"method": "supervised", "setting": "pretrained", "share": 0.25}} if method == "cotrain" else {}
        )

    monkeypatch.setattr("semi_med.compare.plan.about", said)


def test_an_earlier_run_is_part_of_the_iterations(pretraining):
    job = make_jobs(["cotrain"], {(4, 1): "labeled_4_seed1"}, iterations=10)[0]
    assert (job.before, job.before_iterations, job.iterations) == ("supervised", 2, 8)
    assert job.before_setting == "pretrained"


def test_too_few_iterations_for_an_earlier_run_are_refused(pretraining):
    with pytest.raises(InputError, match="25% of its iterations on an earlier run; 3 are too few"):
        make_jobs(["cotrain"], {(4, 1): "x"}, iterations=3)


def test_the_bundle_of_an_earlier_run_is_needed_too(pretraining):
    assert with_earlier(["cotrain"]) == ["cotrain", "supervised"]


def test_every_method_that_names_an_earlier_run_names_one_that_there_is():
    from semi_med.recipes.compose import compose_config, methods

    for method in methods():
        if before := about(method).get("before"):
            assert before["method"] in methods()
            assert before["setting"] in compose_config("train", method=method, task="hippocampus")


# ---- lists and bundles ---------------------------------------------------------------------------------------------


def test_methods_and_floor_of_a_seed_share_one_list_and_seeds_differ(plan, tmp_path):
    lists = {job.name: job.data_list for job in plan.jobs}
    assert lists["cotrain_2_seed1"] == lists["supervised_2_seed1"] == "labeled_2_seed1"
    assert lists["supervised_all_seed1"] == lists["supervised_all_seed2"] == "all_labeled"
    drawn = [load_data_list(tmp_path / "out" / "lists" / f"labeled_2_seed{seed}.json").labeled for seed in (1, 2)]
    assert drawn[0] != drawn[1]


def test_every_method_has_its_bundle(plan, tmp_path):
    for method in ("supervised", "cotrain"):
        metadata = tmp_path / "out" / "bundles" / f"{method}_phantom" / "configs" / "metadata.json"
        assert json.loads(metadata.read_text())["bundle"] == f"{method}_phantom"


@pytest.mark.parametrize(("suffix", "unit"), [("png", "picture"), ("nii.gz", "scan")])
def test_pictures_are_not_called_scans(suffix, unit):
    cases = [{"image": f"{name}.{suffix}", "label": f"{name}_label.{suffix}"} for name in "abct"]
    tree = {"name": "x", "labels": {"0": "skin", "1": "lesion"}, "labeled": cases[:3], "test": cases[3:]}
    base = Base({"base": DataList.model_validate(tree)}, "x.json")
    made = make_lists(base, labeled=[1], seeds=[1], all_labels=False)
    assert made.unit == unit
    assert shows_pictures(made.lists["labeled_1_seed1"]) == (unit == "picture")


def test_a_list_that_was_named_is_the_base(ask, data, tmp_path):
    other = shutil.move(data / "data_list.json", tmp_path / "mine.json")
    assert prepare_plan(ask(data_list=Path(other))).pool == 5


def test_la_takes_its_published_lists_for_every_seed_and_says_so(ask, data):
    from semi_med.datasets.la import build_lists

    write_base(
        data,
        **{
            s: [c.model_dump(exclude_none=True) for c in getattr(build_lists()["labeled_08"], s)]
            for s in ("labeled", "unlabeled", "validation", "test")
        },
    )
    plan = prepare_plan(ask(task="la", labeled=(4, 8)))
    lists = {job.name: job.data_list for job in plan.jobs}
    assert lists["cotrain_4_seed1"] == lists["cotrain_4_seed2"] == "labeled_4"
    assert lists["supervised_all_seed2"] == "all_labeled"
    assert load_data_list(ask().folder / "lists" / "labeled_4.json") == build_lists()["labeled_04"]
    assert (plan.unit, plan.pool) == ("scan", 76)
    assert plan.notes[0].startswith("4 and 8 labelled: the published lists, the same for every seed")


def test_a_number_without_a_published_list_is_refused_with_those_there_are(ask):
    with pytest.raises(InputError, match=r"none with 5 labelled, there are 4, 8 and 16.*--data-list"):
        prepare_plan(ask(task="la", labeled=(5,)))


# ---- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"methods": ("cotrian",)}, "no method 'cotrian'. Did you mean cotrain"),
        ({"task": "phantm"}, "no task 'phantm'. Did you mean phantom"),
        ({"task": "hippocampus"}, "2 classes with the background, the task hippocampus has 3"),
        ({"labeled": (6,)}, "6 labelled subjects were asked for, but the training pool holds 5"),
        ({"labeled": (0,)}, "0 labelled subjects were asked for"),
        ({"labeled": (5,)}, "no unlabelled one is left for cotrain"),
        ({"dataset_dir": Path("nowhere")}, "nowhere: the data set's folder is missing"),
        ({"data_list": Path("no.json")}, "no.json"),
        ({"settings": ("learning_rat=1",)}, "no setting learning_rat. Did you mean learning_rate"),
        ({"settings": ("peer_def#levels=2",)}, "supervised: there is no setting peer_def#levels.*cotrain:peer_def#lev"),
        ({"settings": ("bcp:alpha=2",)}, "bcp: has settings, but is not among the methods"),
        ({"settings": ("cotrane:alpha=2",)}, "no method 'cotrane'"),
        ({"settings": ("max_iterations=5",)}, "set by the comparison itself. Use --iterations"),
        ({"settings": ("cotrain:seed=5",)}, "set by the comparison itself. Use --seeds"),
        ({"settings": ("early_stop_patience=3",)}, "set by the comparison itself. All methods are trained"),
        ({"settings": ("train#trainer#max_iterations=5",)}, "set by the comparison itself. Use --iterations"),
        ({"settings": ("train#dataset#data=[]",)}, "set by the comparison itself. Every run gets it from the plan"),
        ({"settings": ("train#labeled_batches#seed=5",)}, "set by the comparison itself. Every run gets it from"),
        ({"settings": ("learning_rate",)}, "NAME=VALUE"),
        ({"methods": ()}, "--methods is needed"),
        ({"labeled": (), "seeds": None}, "--labeled, --seeds are needed"),
    ],
)
def test_wrong_input_is_refused_before_anything_is_written(ask, changed, text):
    with pytest.raises(InputError, match=text):
        prepare_plan(ask(**changed))
    assert read_plan(ask().folder) is None
    assert not (ask().folder / "lists").exists()


def test_a_subject_in_two_sections_is_refused(ask, data):
    write_base(data, test=[entry("a3")])
    with pytest.raises(ProblemsError, match="the same subject is in two sections"):
        prepare_plan(ask())


def test_a_missing_file_is_refused_also_of_the_test_section(ask, data):
    (data / "labels" / "t2.nii.gz").unlink()
    with pytest.raises(InputError, match=r"1 of the 18 files of the data list are missing: labels/t2\.nii\.gz"):
        prepare_plan(ask())


def test_a_folder_of_something_else_is_never_touched(ask):
    ask().folder.mkdir()
    (ask().folder / "thesis.txt").write_text("x")
    with pytest.raises(InputError, match="holds something else"):
        prepare_plan(ask())
    assert [path.name for path in ask().folder.iterdir()] == ["thesis.txt"]


def test_a_damaged_plan_is_refused(ask, plan):
    (ask().folder / "compare.json").write_text("{}")
    with pytest.raises(InputError, match="no plan of a comparison"):
        prepare_plan(ask())


# ---- started again -------------------------------------------------------------------------------------------------


def test_the_same_command_gives_the_same_plan(ask, plan):
    before = (ask().folder / "compare.json").read_bytes()
    assert prepare_plan(ask()) == plan
    assert (ask().folder / "compare.json").read_bytes() == before


def test_the_folder_alone_goes_on_with_its_plan_without_the_base_list(ask, plan, data):
    (data / "data_list.json").unlink()
    assert prepare_plan(Request(folder=ask().folder)) == plan


def test_what_is_added_follows_and_jobs_keep_their_numbers(ask, plan):
    more = prepare_plan(Request(folder=ask().folder, labeled=(3,), seeds=3))
    assert names(more)[:10] == names(plan)
    assert {name.split("_", 1)[1] for name in names(more)[10:]} == {
        *("1_seed3", "2_seed3", "3_seed1", "3_seed2", "3_seed3", "all_seed3")
    }
    assert more.labeled == (1, 2, 3)
    assert len((ask().folder / "jobs.txt").read_text().splitlines()) == len(more.jobs)


def test_a_method_can_be_added_and_what_is_not_named_again_stays(ask, plan):
    more = prepare_plan(ask(methods=("mean_teacher",), labeled=(1,), seeds=1))
    assert more.methods == (FLOOR, "cotrain", "mean_teacher")
    assert names(more)[10:] == [f"mean_teacher_{n}_seed{seed}" for seed in (1, 2) for n in (1, 2)]


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"iterations": 30}, "--iterations: 20 in the folder's plan, 30 here"),
        ({"iterations": None}, "--iterations: 20 in the folder's plan, 200 here"),
        ({"task": "la", "data_list": "base"}, "--task: phantom in the folder's plan, la here"),
        ({"settings": ("learning_rate=1",)}, "--set learning_rate: not set in the folder's plan, 1 here"),
        ({"settings": ("cotrain:ramp_share=1",)}, "--set cotrain:ramp_share: not set"),
        ({"all_labels": False}, "--all-labels: True in the folder's plan, False here"),
    ],
)
def test_another_setting_is_refused_with_what_differs(ask, plan, data, changed, text):
    before = (ask().folder / "compare.json").read_bytes()
    if "data_list" in changed:
        changed = {**changed, "data_list": data / "data_list.json"}
    with pytest.raises(ProblemsError, match=text):
        prepare_plan(ask(**changed))
    assert (ask().folder / "compare.json").read_bytes() == before


def test_a_setting_that_is_left_out_of_a_whole_command_is_refused(ask):
    prepare_plan(ask(settings=("learning_rate=1",)))
    with pytest.raises(ProblemsError, match="--set learning_rate: 1 in the folder's plan, not set here"):
        prepare_plan(ask())


def test_another_base_list_is_refused(ask, plan, data):
    write_base(data, unlabeled=[entry("d", key="monitor_label")])
    with pytest.raises(ProblemsError, match=r"--data-list: data_list\.json with SHA-256"):
        prepare_plan(ask())


def test_another_folder_of_data_is_refused(ask, plan, data, tmp_path):
    shutil.copytree(data, tmp_path / "other")
    with pytest.raises(ProblemsError, match="--dataset-dir"):
        prepare_plan(ask(dataset_dir=tmp_path / "other"))


def test_a_comparison_goes_on_with_its_own_bundles_when_recipes_change(ask, plan, monkeypatch):
    monkeypatch.setattr(planning, "recipe_digest", lambda method, task: f"another {method}")
    assert prepare_plan(ask()).recipes == plan.recipes
    assert prepare_plan(ask(seeds=3)).recipes == plan.recipes


def test_no_method_is_added_once_recipes_have_changed(ask, plan, monkeypatch):
    monkeypatch.setattr(planning, "recipe_digest", lambda method, task: f"another {method}")
    with pytest.raises(InputError, match=r"cps cannot be added: the recipes of .*cotrain.* have changed since"):
        prepare_plan(ask(methods=("cotrain", "cps")))


def test_a_list_that_was_changed_by_hand_is_refused(ask, plan):
    path = ask().folder / "lists" / "labeled_1_seed1.json"
    path.write_text(path.read_text().replace("images/a1", "images/b"))
    with pytest.raises(InputError, match=r"labeled_1_seed1\.json: this list differs"):
        prepare_plan(ask())


def test_a_method_with_settings_of_its_own_is_told_of(ask):
    plan = prepare_plan(ask(settings=("cotrain:ramp_share=1", "learning_rate=0.1")))
    assert len(plan.notes) == 1
    assert plan.notes[0].startswith("Co-training")
    assert plan.notes[0].endswith("ran with settings of its own: ramp_share=1.")


def test_the_lists_are_those_that_the_bundle_of_the_task_trains_on(tmp_path):
    """Protocol A of Pancreas-CT as published tests on a scan that it trains on; the bundle leaves it out."""
    from semi_med.compare.lists import find_base

    found = find_base("pancreas", dataset_dir=tmp_path, data_list=None)
    assert {name: (len(one.labeled), len(one.test)) for name, one in found.lists.items()} == {
        "labeled_6": (6, 19),
        "labeled_12": (11, 19),
        "all_labeled": (57, 19),
    }


def test_without_a_data_list_json_the_list_of_all_labels_is_drawn_from(tmp_path):
    from semi_med.compare.lists import find_base
    from semi_med.data.data_list import DataList, save_data_list

    save_data_list(DataList(name="x", labels={"0": "background", "1": "organ"}), tmp_path / "all_labeled.json")
    assert find_base("hippocampus", dataset_dir=tmp_path, data_list=None).source == "all_labeled.json"
    save_data_list(DataList(name="y", labels={"0": "background", "1": "organ"}), tmp_path / "data_list.json")
    assert find_base("hippocampus", dataset_dir=tmp_path, data_list=None).source == "data_list.json"
