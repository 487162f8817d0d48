"""Variants: one method with several settings in one comparison."""

from __future__ import annotations

import json

import pytest

from semi_med.compare.collect import collect, command_of
from semi_med.compare.job import is_done, run_job
from semi_med.compare.plan import FLOOR, make_jobs, read_plan
from semi_med.compare.planning import Request, prepare_plan
from semi_med.compare.records import table_of
from semi_med.compare.stages import stages_of
from semi_med.errors import InputError, ProblemsError

SLOW = {"methods": ("cotrain", "slow=cotrain"), "settings": ("slow:learning_rate=0.001",), "labeled": (1,)}


@pytest.fixture
def two(ask):
    """Co-training as its recipe has it, and with a tenth of its learning rate."""
    return prepare_plan(ask(**SLOW))


def settings_of(plan, name: str, folder) -> dict:
    return dict(stages_of(plan, plan.job(name), folder)[-1].settings)


# ---- what is trained -----------------------------------------------------------------------------------------------


def test_a_variant_has_jobs_of_its_own_beside_those_of_its_method(two):
    first = [job.name for job in two.jobs if job.seed == 1]
    assert first == ["supervised_1_seed1", "supervised_all_seed1", "cotrain_1_seed1", "slow_1_seed1"]


def test_a_variant_differs_from_its_method_in_its_settings_alone(two, ask):
    own, other = (settings_of(two, f"{name}_1_seed1", ask().folder) for name in ("cotrain", "slow"))
    assert own.pop("output_dir") != other.pop("output_dir")
    assert own == {name: value for name, value in other.items() if name != "learning_rate"}
    assert other["learning_rate"] == "0.001"


def test_it_is_trained_with_the_bundle_of_its_method(two, ask):
    stages = [stages_of(two, two.job(f"{name}_1_seed1"), ask().folder)[-1] for name in ("cotrain", "slow")]
    assert stages[0].bundle == stages[1].bundle
    assert stages[0].recipe == stages[1].recipe == two.recipes["cotrain"]


def test_what_is_set_for_a_method_goes_for_its_variants_which_may_change_it(ask):
    settings = ("learning_rate=1", "cotrain:ramp_share=0.5", "cotrain:batch_size=4", "slow:ramp_share=0.1")
    plan = prepare_plan(ask(methods=("cotrain", "slow=cotrain"), settings=settings))
    found = settings_of(plan, "slow_1_seed1", ask().folder)
    assert [found[name] for name in ("learning_rate", "ramp_share", "batch_size")] == ["1", "0.1", "4"]
    assert settings_of(plan, "cotrain_1_seed1", ask().folder)["ramp_share"] == "0.5"


def test_its_method_need_not_be_compared(ask):
    plan = prepare_plan(ask(methods=("slow=cotrain",), settings=("slow:learning_rate=0.001",)))
    assert plan.methods == (FLOOR, "slow")
    assert list(plan.recipes) == [FLOOR, "cotrain"]


def test_a_variant_of_the_floor_is_no_floor_and_has_no_ceiling(ask):
    plan = prepare_plan(ask(methods=("soft=supervised",), settings=("soft:method#alpha=0.1",), seeds=1, labeled=(1,)))
    assert [job.name for job in plan.jobs] == ["supervised_1_seed1", "supervised_all_seed1", "soft_1_seed1"]


def test_a_variant_has_the_place_of_its_method_in_the_order():
    lists = {(4, seed): "x" for seed in (1, 2)}
    names = [FLOOR, "mean_teacher", "slow"]
    jobs = make_jobs(names, lists, iterations=10, variants={"slow": "cotrain"})
    assert [job.method for job in jobs] == [FLOOR, "slow", "mean_teacher", "slow", "mean_teacher", FLOOR]


def test_the_earlier_run_of_a_variant_is_planned_too_and_gets_its_network(ask):
    settings = ("mini:network_def#base_filters=2", "mini:learning_rate=0.5")
    plan = prepare_plan(ask(methods=("mini=bcp",), settings=settings))
    first, last = stages_of(plan, plan.job("mini_1_seed1"), ask().folder)
    assert (first.method, last.method) == ("bcp_pretrain", "bcp")
    assert first.settings["network_def#base_filters"] == last.settings["network_def#base_filters"] == "2"


# ---- a file of variants --------------------------------------------------------------------------------------------


def test_a_file_means_the_same_as_the_command_line(ask, tmp_path, two):
    path = tmp_path / "variants.json"
    path.write_text(json.dumps({"slow": {"method": "cotrain", "settings": {"learning_rate": 0.001}}}))
    again = prepare_plan(ask(folder=tmp_path / "file", methods=("cotrain",), labeled=(1,), variants=path))
    assert again == two


def test_values_of_a_file_are_as_json_has_them(ask, tmp_path):
    path = tmp_path / "variants.json"
    settings = {"crop_size": [16, 16, 16], "channels_last": True, "cache_dir": "x", "gradient_clip": None}
    path.write_text(json.dumps({"slow": {"method": "cotrain", "settings": settings}}))
    found = prepare_plan(ask(methods=(), variants=path)).settings["slow"]
    assert found == {"crop_size": "[16, 16, 16]", "channels_last": "true", "cache_dir": "x", "gradient_clip": "null"}


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("[1]", "an object of objects was wanted"),
        ("{", "the variants cannot be read"),
        ('{"slow": {"settings": {}}}', "slow needs a method"),
        ('{"slow": {"method": "cotrain", "setings": {}}}', "no entry of slow 'setings'. Did you mean settings"),
        ('{"slow": {"method": "cotrian", "settings": {}}}', "no method 'cotrian'. Did you mean cotrain"),
    ],
)
def test_a_file_that_is_not_as_described_is_refused(ask, tmp_path, content, text):
    path = tmp_path / "variants.json"
    path.write_text(content)
    with pytest.raises(InputError, match=text):
        prepare_plan(ask(variants=path))


# ---- refused -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("methods", "settings", "text"),
    [
        (("slow=cotrian",), (), "no method 'cotrian'. Did you mean cotrain"),
        (("cotrain=cps",), (), "'cotrain' is a method.*nogate=fixmatchseg"),
        (("a/b=cotrain",), (), "'a/b' cannot be the name of a variant"),
        (("=cotrain",), (), "'' cannot be the name of a variant"),
        (("slow=cotrain", "slow=cps"), (), "slow is a variant of cotrain, and of cps here"),
        (("slow=cotrain",), (), "slow has no settings of its own.*--set slow:NAME=VALUE"),
        (("slow=cotrain",), ("slwo:batch_size=1",), "no method 'slwo'. Did you mean slow"),
        (("slow=cotrain",), ("slow:learning_rat=1",), "slow: there is no setting learning_rat. Did you mean learning_"),
        (("slow=cotrain",), ("slow:method#alhpa=1",), "no setting method#alhpa. Did you mean method#alpha"),
        (("slow=cotrain",), ("slow:method#max_wieght=1",), "no setting method#max_wieght"),
        (("slow=cotrain",), ("slow:seed=1",), "set by the comparison itself"),
        (
            ("slow=cotrain", "lazy=cotrain"),
            ("slow:learning_rate=1", "lazy:learning_rate=1"),
            "slow and lazy are both cotrain with the same settings",
        ),
    ],
)
def test_what_cannot_be_meant_is_refused(ask, methods, settings, text):
    with pytest.raises(InputError, match=text):
        prepare_plan(ask(methods=methods, settings=settings))
    assert read_plan(ask().folder) is None


# ---- started again -------------------------------------------------------------------------------------------------


def test_the_folder_alone_goes_on_with_its_variants(two, ask):
    assert prepare_plan(Request(folder=ask().folder)) == two


def test_the_command_on_the_page_gives_the_same_plan(two, ask):
    words = command_of(two).split()
    assert words[words.index("--methods") + 1 : words.index("--labeled")] == [FLOOR, "cotrain", "slow=cotrain"]
    assert prepare_plan(ask(**SLOW)) == two


def test_a_variant_is_added_to_a_comparison_with_its_settings_alone(two, ask):
    more = prepare_plan(
        Request(folder=ask().folder, methods=("fast=cotrain",), settings=("fast:learning_rate=0.1",)),
    )
    assert more.methods == (FLOOR, "cotrain", "slow", "fast")
    assert more.settings == {"slow": {"learning_rate": "0.001"}, "fast": {"learning_rate": "0.1"}}
    assert more.jobs[: len(two.jobs)] == two.jobs


def test_a_whole_command_need_not_name_the_variants_that_are_there(two, ask):
    more = prepare_plan(ask(methods=("mean_teacher",), labeled=(1,)))
    assert more.settings == two.settings
    assert more.methods == (FLOOR, "cotrain", "slow", "mean_teacher")


@pytest.mark.parametrize(
    ("changed", "text"),
    [
        ({"settings": ("slow:learning_rate=0.5",)}, "--set slow:learning_rate: 0.001 in the folder's plan, 0.5 here"),
        ({"settings": ("slow:batch_size=4",)}, "--set slow:batch_size: not set in the folder's plan, 4 here"),
        ({"settings": ("cotrain:batch_size=4",)}, "--set cotrain:batch_size: not set in the folder's plan, 4 here"),
    ],
)
def test_what_a_variant_means_cannot_change(two, ask, changed, text):
    with pytest.raises(ProblemsError, match=text):
        prepare_plan(Request(folder=ask().folder, **changed))


def test_a_variant_cannot_become_one_of_another_method(two, ask):
    with pytest.raises(InputError, match="slow is a variant of cotrain, and of cps here"):
        prepare_plan(Request(folder=ask().folder, methods=("slow=cps",)))


def test_a_plan_without_variants_is_read(plan, ask):
    path = ask().folder / "compare.json"
    content = json.loads(path.read_text())
    del content["variants"]
    path.write_text(json.dumps(content))
    assert read_plan(ask().folder) == plan


# ---- done and told -------------------------------------------------------------------------------------------------


def test_a_table_of_the_method_is_not_taken_for_one_of_the_variant(two, ask, trainings):
    folder = ask().folder
    own, variant = two.job("cotrain_1_seed1"), two.job("slow_1_seed1")
    run_job(two, own, folder, say=lambda line: None)
    for suffix in (".csv", ".json"):
        source, target = (table_of(job, folder).with_suffix(suffix) for job in (own, variant))
        target.write_bytes(source.read_bytes())
    assert is_done(two, own, folder)
    assert not is_done(two, variant, folder)


def test_the_page_knows_variants_by_their_names(two, ask, trainings):
    for job in two.jobs:
        run_job(two, job, ask().folder, say=lambda line: None)
    view = collect(two, ask().folder)
    assert view.method_names["slow"] == f"slow ({view.method_names['cotrain']})"
    assert {run.method for run in view.runs} == {FLOOR, "cotrain", "slow"}
    assert any(note.endswith("ran with settings of its own: learning_rate=0.001.") for note in view.notes)
