"""What a person types: numbers, and names that may be misspelt."""

import pytest
from planning_samples import CPU, fingerprint

from semi_med.errors import InputError
from semi_med.planning.parts import task_parts
from semi_med.planning.plan import Wishes, make_plan
from semi_med.planning.rules import Choice
from semi_med.planning.settings import check_name, numbers, whole_numbers, with_given, with_settings
from semi_med.planning.structures import Structure
from semi_med.planning.trial import write_parts
from semi_med.recipes.compose import compose_config


@pytest.fixture(scope="module")
def parts():
    found = fingerprint()
    plan = make_plan(found, Wishes(), CPU, cases=20, networks=2, try_it=None)
    words = {"preprocessing": "", "split": "", "plan": ""}
    return task_parts("mine", found, plan.choices, dataset_dir="/data", words=words)


@pytest.mark.parametrize(("share", "gate"), [(0.03, "foreground"), (0.3, "image")])
def test_fixmatchseg_counts_the_certainty_of_small_structures_apart(share, gate, tmp_path):
    found = fingerprint(classes=(Structure(1, "heart", 4, share),))
    plan = make_plan(found, Wishes(), CPU, cases=20, networks=1, try_it=None)
    words = {"preprocessing": "", "split": "", "plan": ""}
    write_parts(task_parts("mine", found, plan.choices, dataset_dir="/data", words=words), tmp_path / "task")
    settings = compose_config("train", method="fixmatchseg", task=tmp_path / "task")
    assert settings["method"]["gate"] == gate and settings["ramp_share"] == (0.4 if gate == "foreground" else 0.0)


def test_what_a_method_says_over_any_task_can_be_set(parts, tmp_path):
    write_parts(with_settings(parts, ["labeled_augment#rotate=10"], method="segmatch"), tmp_path / "task")
    settings = compose_config("train", method="segmatch", task=tmp_path / "task")
    assert settings["labeled_augment"]["rotate"] == 10


def test_another_optimizer_brings_none_of_the_arguments_of_the_one_before(parts, tmp_path):
    text = 'optimizer={"_target_": "torch.optim.Adam", "params": "$[]", "lr": 0.1}'
    write_parts(with_settings(parts, [text], method="supervised"), tmp_path / "task")
    settings = compose_config("train", method="supervised", task=tmp_path / "task")
    assert settings["optimizer"] == {"_target_": "torch.optim.Adam", "params": "$[]", "lr": 0.1}


def test_numbers_are_written_with_commas_or_an_x():
    assert numbers("0.8, 0.8,5", "--spacing") == (0.8, 0.8, 5.0)
    assert whole_numbers("64x64x48", "--crop") == (64, 64, 48)
    assert numbers("none", "--spacing") == () and numbers(None, "--spacing") is None


@pytest.mark.parametrize("text", ["64,a", "", "-1,2", "1;2"])
def test_what_is_no_number_is_refused(text):
    with pytest.raises(InputError, match="numbers such as 64,64,48 were wanted"):
        numbers(text, "--crop")


def test_half_a_voxel_is_refused():
    with pytest.raises(InputError, match="whole numbers were wanted"):
        whole_numbers("64,64.5", "--crop")


def test_a_misspelt_name_gets_the_nearest():
    with pytest.raises(InputError, match=r"there is no method 'contrain'. Did you mean cotrain\?"):
        check_name("method", "contrain", known=["cotrain", "supervised"])


def test_settings_go_where_they_belong(parts):
    texts = ["learning_rate=0.02", "network_def#levels=3", "method#alpha=0.3", "peer_def#dropout=0.2"]
    made = with_settings(parts, texts, method="cotrain")
    assert made["train"]["learning_rate"] == 0.02
    assert made["shared"]["network_def"]["levels"] == 3
    assert made["cotrain/train"] == {"method": {"alpha": 0.3}}
    assert made["cotrain/shared"] == {"peer_def": {"dropout": 0.2}}
    assert parts["train"]["learning_rate"] != 0.02


def test_a_setting_of_the_prediction_alone_goes_there(parts):
    made = with_settings(parts, ["largest_component=true"], method="cotrain")
    assert made["inference"]["largest_component"] is True
    assert "largest_component" not in made["train"]
    with pytest.raises(InputError, match="wants true or false, got 1"):
        with_settings(parts, ["largest_component=1"], method="cotrain")


def test_choices_that_a_setting_decides_are_marked_and_have_its_value():
    choices = {
        "rate": Choice("rate", 0.01, "a rule", "--set learning_rate=..."),
        "strength": Choice("strength", {"gain": 0.1, "noise": 0.1}, "a rule", "--set unlabeled_augment#noise=..."),
        "cache": Choice("cache", False, "a rule", "--set cache_dir=FOLDER"),
        "levels": Choice("levels", 4, "a rule", "--set network_def#levels=N"),
        "crop": Choice("crop", [16, 16], "a rule", "--crop"),
    }
    made = with_given(choices, ["learning_rate=0.02", "unlabeled_augment#gain=0.3", "cache_dir=here"])
    assert made["rate"] == Choice("rate", 0.02, "as --set says", "--set learning_rate=...", True)
    assert made["strength"].value == {"gain": 0.3, "noise": 0.1} and made["strength"].given
    assert made["cache"].value is True and made["cache"].given
    assert (made["levels"], made["crop"]) == (choices["levels"], choices["crop"])


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("learning_rat=0.1", r"Did you mean learning_rate\?"),
        ("method#alfa=0.1", r"Did you mean method#alpha\?"),
        ("learning_rate=fast", "wants a number, got 'fast'"),
        ("amp#x=1", "there is no setting amp#x"),
        ("channels_last=1", "wants true or false, got 1"),
        ("stride=8", r"wants a list such as \[1, 2\]"),
        ("crop_size=[8,8,8]", "Use --crop"),
        ("batch_size=1", "Use --batch"),
        ("seed", "NAME=VALUE"),
    ],
)
def test_a_setting_that_is_none_is_refused(parts, text, said):
    with pytest.raises(InputError, match=said):
        with_settings(parts, [text], method="cotrain")


def test_a_setting_of_the_method_is_unknown_to_another(parts):
    with pytest.raises(InputError, match="there is no setting ramp_share"):
        with_settings(parts, ["ramp_share=0.1"], method="supervised")
