"""Every method as a bundle, run by MONAI in this process: what it trains, writes, resumes from and starts from."""

from __future__ import annotations

import csv
import inspect
import logging
import re
from collections.abc import Callable
from pathlib import Path
from pydoc import locate
from typing import Any

import pytest
import torch

from semi_med import bundle
from semi_med.engines import SemiSupervisedTrainer
from semi_med.networks import VNet
from semi_med.recipes.compose import compose, compose_config, methods
from tests.conftest import TINY_SETTINGS, BundleRunner

ErrorOf = Callable[[Callable[[], object]], Any]

TASK = "phantom"
SECOND = {
    **{"cotrain": "peer", "cps": "peer", "mean_teacher": "teacher", "uamt": "teacher", "bcp": "teacher"},
    "densefixmatch": "network",  # the first, which is deployed, is its teacher
}
BESIDE_THE_LOSS = {
    "supervised": {"supervised"},
    "bcp_pretrain": {"supervised"},
    "mean_teacher": {"supervised", "consistency", "unsupervised_weight"},
    "uamt": {"supervised", "consistency", "unsupervised_weight", "certain"},
    "cps": {"supervised", "cross_1", "cross_2", "unsupervised_weight"},
    "bcp": {"supervised", "unsupervised"},
    "cotrain": {"supervised", "unsupervised", "fixed_1", "dynamic_1", "unsupervised_weight"},
    "densefixmatch": {"supervised", "unsupervised", "unsupervised_weight", "matched"},
    "fixmatch": {"supervised", "unsupervised", "pasted"},
    "fixmatchseg": {"supervised", "unsupervised", "accepted", "confidence"},
    "segmatch": {
        "supervised",
        "unsupervised",
        "unsupervised_weight",
        "score",
        "accepted",
        "discriminator_loss",
        "discriminator_labeled",
    },
    "supmix": {
        *("supervised", "strong_1", "strong_2", "feature", "pasted"),
        *("adversarial", "discriminator_loss", "discriminator_right"),
    },
    "unimatch": {"supervised", "strong_1", "strong_2", "feature", "pasted"},
}
WITH_PSEUDO_LABELS = {*SECOND, "fixmatch", "fixmatchseg", "segmatch", "supmix", "unimatch"}
HEALTH = {"confident", "foreground", "agreement"}
WATCHED = ("mean_teacher", "bcp", "densefixmatch")
WEAK_BY_THE_PAPER = {"segmatch"}  # labelled crops are flipped and shifted only


def rows(folder: Path, name: str = "train") -> list[dict[str, str]]:
    """Rows of a curve without the clock."""
    with (folder / "logs" / f"{name}.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k != "seconds"} for row in csv.DictReader(file)]


def load(path: Path) -> dict[str, Any]:
    return torch.load(path, map_location="cpu", weights_only=True)


def same(a: Any, b: Any) -> bool:
    """No bit of difference, in whatever a checkpoint holds."""
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and torch.equal(a, b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(same(x, y) for x, y in zip(a, b, strict=True))
    return bool(a == b)


def runner_of(method: str, root: Path, tiny_data: Any) -> BundleRunner:
    """The composed bundle of a method with settings that make it tiny; each iteration is a row."""
    settings = {
        **TINY_SETTINGS,
        "dataset_dir": str(tiny_data.folder),
        "data_list_file": str(tiny_data.data_list),
        "learning_rate": 0.02,
        "train#handlers#1#interval": 1,
    }
    if SECOND.get(method) != "peer":
        settings = {key: value for key, value in settings.items() if not key.startswith("peer_def#")}
    if method == "supmix":
        settings["discriminator_def#widths"] = [4, 8]
    return BundleRunner(compose(method, TASK, root / f"{method}_{TASK}"), settings)


class Trained:
    """Runs of four iterations from another working directory, each trained when it is first asked for."""

    def __init__(self, root: Path, tiny_data: Any) -> None:
        self.root, self.tiny_data = root, tiny_data
        self.runners: dict[str, BundleRunner] = {}
        self.elsewhere = root / "elsewhere"
        self.elsewhere.mkdir()

    def __call__(self, method: str) -> Path:
        folder = self.root / "runs" / method
        if not folder.is_dir():
            with pytest.MonkeyPatch.context() as patch:
                patch.chdir(self.elsewhere)
                self.runner(method)(output_dir=str(folder), **self.start(method))
        return folder

    def runner(self, method: str) -> BundleRunner:
        if method not in self.runners:
            self.runners[method] = runner_of(method, self.root / "bundles", self.tiny_data)
        return self.runners[method]

    def start(self, method: str) -> dict[str, Any]:
        """What a method has to be given to start from."""
        return {"pretrained": str(self("bcp_pretrain") / "models" / "model.pt")} if method == "bcp" else {}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, tiny_data: Any) -> Trained:
    return Trained(tmp_path_factory.mktemp("methods"), tiny_data)


every_method = pytest.mark.parametrize("method", methods())


# ---- what a run writes ---------------------------------------------------------------------------------------------


@every_method
def test_a_bundle_trains_from_another_folder_and_writes_all_its_networks(trained: Trained, method: str) -> None:
    folder = trained(method)
    assert [row["iteration"] for row in rows(folder)] == ["1", "2", "3", "4"]
    keys = ["model", SECOND[method]] if method in SECOND else ["model"]
    assert list(load(folder / "models" / "model.pt")) == keys
    assert (folder / "models" / "model_best_validation.pt").is_file()
    assert len(rows(folder, "validation")) == 1
    assert list(trained.elsewhere.iterdir()) == []


@every_method
def test_labelled_crops_of_the_hippocampus_are_changed_as_the_unlabelled_ones_are(method: str) -> None:
    """The floor must not be worse augmented than what it is compared with."""
    found = compose_config("train", method=method, task="hippocampus")
    assert found["labeled_augment"] == found["unlabeled_augment"]
    if method not in WEAK_BY_THE_PAPER:
        assert found["labeled_augment"]["rotate"] > 0 and found["labeled_augment"]["noise"] > 0
    assert found["labeled_margin"] == 8  # so that a turned crop has no corners from nowhere


@every_method
def test_the_columns_of_the_curves_are_those_the_documentation_names(trained: Trained, method: str) -> None:
    found = rows(trained(method))
    wanted = {"loss", *BESIDE_THE_LOSS[method], *(HEALTH if method in WITH_PSEUDO_LABELS else set())}
    assert wanted <= found[0].keys()
    assert all(torch.isfinite(torch.tensor(float(row[name]))) for row in found for name in wanted)
    others = {
        "densefixmatch": "dense_fixmatch",
        "cotrain": "cotraining",
        "bcp_pretrain": "bcp",
        "fixmatch": "unimatch",
        "supmix": "supmix_sufd",
    }
    document = others.get(method, method)
    text = (Path(__file__).parents[2] / "docs" / "methods" / f"{document}.md").read_text(encoding="utf-8")
    described = wanted - {"loss", "supervised", "unsupervised"}
    assert [name for name in sorted(described) if f"`{name}`" not in text] == []


@every_method
def test_the_folder_of_a_run_predicts_with_the_first_network(trained: Trained, method: str) -> None:
    from semi_med.inference import Predictor

    scan = trained.tiny_data.folder / "images" / "case_9.nii.gz"
    assert Predictor.load(trained(method), device="cpu")(scan).label.shape == (24, 22, 20)


@pytest.mark.parametrize("method", ["mean_teacher", "uamt", "bcp"])
def test_a_teacher_is_no_second_opinion_to_predict_with(trained: Trained, method: str, error_of: ErrorOf) -> None:
    from semi_med.inference import Predictor

    error = error_of(lambda: Predictor.load(trained(method), device="cpu", network="2"))
    assert error.code == "NO_PEER"


@pytest.mark.parametrize("method", ["mean_teacher", "uamt", "bcp"])
def test_the_teacher_of_a_run_is_near_its_student_but_not_the_same(trained: Trained, method: str) -> None:
    state = load(trained(method) / "models" / "model.pt")
    apart = [float((state["model"][k] - state["teacher"][k]).abs().max()) for k in state["model"]]
    assert 0 < max(apart) < 0.5


@pytest.mark.parametrize("method", ["mean_teacher", "bcp"])
def test_the_optimizer_has_the_students_parameters_alone(trained: Trained, method: str) -> None:
    state = load(trained(method) / "checkpoints" / "iteration_00000004.pt")
    (group,) = state["optimizer"]["param_groups"]
    trainable = [key for key in state["networks"]["network"] if "running" not in key and "num_batches" not in key]
    assert len(group["params"]) == len(trainable)


def test_averaged_weights_are_kept_of_the_student_and_not_of_its_teacher(trained: Trained, tmp_path: Path) -> None:
    trained.runner("mean_teacher")(output_dir=str(tmp_path), average_decay=0.5, max_iterations=2)
    assert list(load(tmp_path / "checkpoints" / "iteration_00000002.pt")["averages"]) == ["network"]
    assert list(load(tmp_path / "models" / "model.pt")) == ["model", "teacher"]


# ---- what the documentation tells ----------------------------------------------------------------------------------

PAGES = sorted((Path(__file__).parents[2] / "docs" / "methods").glob("*.md"))
COMPARE = {"iterations", "task", "methods", "set", "seeds"}
NOT_OF_TRAINING = {"config_file", "dataset_dir", "network", "region", "iou", *COMPARE}


def is_a_setting(config: dict[str, Any], name: str) -> bool:
    """It stands in the configuration, or is an argument of the component it stands in."""
    *parents, last = name.split("#")
    place: Any = config
    for part in parents:
        if part not in place:
            return False
        place = place[part]
    if last in place:
        return True
    target: Any = locate(place["_target_"]) if "_target_" in place else None
    if target is None:
        return False
    classes = inspect.getmro(target)[:-1] if inspect.isclass(target) else (target,)  # arguments may go on to a base
    return any(last in inspect.signature(one).parameters for one in classes)


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_every_override_of_a_methods_page_is_a_setting_of_its_bundle(page: Path) -> None:
    method, task = {
        "cotraining": ("cotrain", "la"),
        "dense_fixmatch": ("densefixmatch", "cityscapes"),
        "fixmatchseg": ("fixmatchseg", "camus"),
        "segmatch": ("segmatch", "lgg"),
        "supmix_sufd": ("supmix", "chase"),
        "unimatch": ("unimatch", "chase"),
    }.get(page.stem, (page.stem, "la"))
    lines = page.read_text(encoding="utf-8").splitlines()
    text = "\n".join(line for line in lines if not line.startswith(("semi-med split", "python benchmarks/")))
    named = set(re.findall(r"--([a-z_]+(?:#[a-z_]+)*)(?![a-z_-])", text)) - NOT_OF_TRAINING
    config = compose_config("train", method=method, task=task)
    elsewhere = {"method#dynamic"} if method == "cps" else set()  # of co-training's bundle, and so it is said
    assert len(named) > 4
    assert sorted(name for name in named - elsewhere if not is_a_setting(config, name)) == []


# ---- resume --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", WATCHED)
def test_a_run_that_was_stopped_ends_as_the_unbroken_one_teacher_included(
    trained: Trained, method: str, tmp_path: Path
) -> None:
    class PulledPlug(Exception):
        pass

    iterate, count = SemiSupervisedTrainer._iteration, []

    def stop_in_the_fourth(self: Any, *args: Any) -> Any:
        count.append(1)
        if len(count) == 4:
            raise PulledPlug
        return iterate(self, *args)

    unbroken, run = trained(method), trained.runner(method)
    settings = {"output_dir": str(tmp_path), **trained.start(method)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SemiSupervisedTrainer, "_iteration", stop_in_the_fourth)
        with pytest.raises(Exception):  # noqa: B017 - MONAI wraps it
            run(**settings)
    assert [row["iteration"] for row in rows(tmp_path)] == ["1", "2", "3"]
    half = load(tmp_path / "checkpoints" / "iteration_00000002.pt")
    run(resume=True, **settings)
    assert rows(tmp_path) == rows(unbroken)
    assert same(load(tmp_path / "models" / "model.pt"), load(unbroken / "models" / "model.pt"))
    ours, theirs = (load(folder / "checkpoints" / "iteration_00000004.pt") for folder in (tmp_path, unbroken))
    assert ours["networks"].keys() == {"network", "teacher"}
    for key in ours:
        assert same(ours[key], theirs[key]), key
    assert not same(half["networks"]["teacher"], ours["networks"]["teacher"])


# ---- starting from an earlier run ----------------------------------------------------------------------------------


@pytest.fixture
def begun(trained: Trained, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, dict[str, torch.Tensor]]]:
    """The weights of all networks of every training, before its first step; nothing is trained from here on."""
    trained("bcp_pretrain")
    found: list[dict[str, dict[str, torch.Tensor]]] = []
    monkeypatch.setattr(SemiSupervisedTrainer, "run", lambda self: found.append(self.model_state()))
    return found


def test_bcp_starts_student_and_teacher_from_the_pre_training(
    trained: Trained, begun: list[Any], tmp_path: Path
) -> None:
    trained.runner("bcp")(output_dir=str(tmp_path), **trained.start("bcp"))
    before = load(trained("bcp_pretrain") / "models" / "model.pt")["model"]
    (start,) = begun
    assert same(start["model"], before)
    assert same(start["teacher"], before)


def test_bcp_can_go_on_in_the_stream_of_batches_where_its_pre_training_ended(
    trained: Trained, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    begins: list[SemiSupervisedTrainer] = []
    start = trained.start("bcp")
    monkeypatch.setattr(SemiSupervisedTrainer, "run", lambda self: begins.append(self))
    trained.runner("bcp")(output_dir=str(tmp_path / "alone"), **start)
    trained.runner("bcp")(output_dir=str(tmp_path / "on"), first_iteration=4, **start)
    alone, on = begins
    for there, here in zip(alone.batches.pair(5), on.batches.pair(1), strict=True):
        assert same(there, here)
    assert not same(alone.batches.pair(1)[0], on.batches.pair(1)[0])
    seeds = [[trainer._generator(place, 0).initial_seed() for place in (1, 5)] for trainer in (alone, on)]
    assert (seeds[1][0], seeds[1][0] == seeds[0][0]) == (seeds[0][1], False)


def test_bcp_is_refused_without_the_weights_of_its_pre_training(
    trained: Trained, begun: list[Any], tmp_path: Path, error_of: ErrorOf
) -> None:
    error = error_of(lambda: trained.runner("bcp")(output_dir=str(tmp_path / "run")))
    assert error.code == "NO_WEIGHTS"
    assert "the weights to start from are missing" in str(error)
    assert str(Path(f"bcp_{TASK}", "models", "pretrained.pt")) in str(error)
    assert "Give the models/model.pt of an earlier run as --pretrained (for bcp the run of bcp_pretrain)" in str(error)
    assert begun == []


def test_bcp_can_be_told_to_start_from_random_weights(trained: Trained, begun: list[Any], tmp_path: Path) -> None:
    """On the command line of MONAI's bundles `null` is a text; a None from Python is left out by MONAI itself."""
    trained.runner("bcp")(output_dir=str(tmp_path), pretrained="null")
    (start,) = begun
    assert same(start["model"], start["teacher"])
    assert not same(start["model"], load(trained("bcp_pretrain") / "models" / "model.pt")["model"])


def test_the_weights_in_the_bundle_are_found_without_being_named(
    trained: Trained, begun: list[Any], tmp_path: Path, tiny_data: Any
) -> None:
    run = runner_of("bcp", tmp_path, tiny_data)
    weights = trained("bcp_pretrain") / "models" / "model.pt"
    (run.bundle / "models").mkdir()
    (run.bundle / "models" / "pretrained.pt").write_bytes(weights.read_bytes())
    run(output_dir=str(tmp_path / "run"))
    assert same(begun[0]["model"], load(weights)["model"])


def test_any_method_can_start_from_an_earlier_run(trained: Trained, begun: list[Any], tmp_path: Path) -> None:
    weights = trained("bcp_pretrain") / "models" / "model.pt"
    trained.runner("cps")(output_dir=str(tmp_path), pretrained=str(weights))
    assert same(begun[0]["model"], load(weights)["model"])
    assert not same(begun[0]["peer"], begun[0]["model"])


def test_two_networks_start_from_the_two_of_an_earlier_run(trained: Trained, begun: list[Any], tmp_path: Path) -> None:
    trained.runner("cps")(output_dir=str(tmp_path / "first"))
    other = {part: {key: value + 1 for key, value in begun[0][part].items()} for part in ("model", "peer")}
    torch.save(other, tmp_path / "model.pt")
    trained.runner("cps")(output_dir=str(tmp_path / "second"), pretrained=str(tmp_path / "model.pt"))
    assert same(begun[1]["model"], other["model"])
    assert same(begun[1]["peer"], other["peer"])


# ---- `start_from` itself -------------------------------------------------------------------------------------------


def small(seed: int, **settings: Any) -> VNet:
    torch.manual_seed(seed)
    return VNet(**{"out_channels": 2, "spatial_dims": 2, "base_filters": 2, "levels": 2, **settings})


def test_no_weights_leave_the_network_as_it_is() -> None:
    network = small(0)
    assert bundle.start_from(network, None) is network
    assert same(network.state_dict(), small(0).state_dict())


@pytest.mark.parametrize("wrap", [lambda state: {"model": state, "peer": {}}, lambda state: state], ids=["run", "bare"])
def test_the_first_network_of_a_run_or_a_bare_state_is_taken_and_logged(
    tmp_path: Path, wrap: Callable[[Any], Any], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.save(wrap(small(1).state_dict()), tmp_path / "model.pt")
    monkeypatch.setattr(logging.getLogger("semi_med"), "propagate", True)
    network = small(0)
    with caplog.at_level("INFO"):
        assert bundle.start_from(network, tmp_path / "model.pt") is network
    assert same(network.state_dict(), small(1).state_dict())
    assert f"starting from {tmp_path / 'model.pt'}" in caplog.text


@pytest.mark.parametrize(
    ("peer", "starts_from"),
    [({}, 0), ({"peer": {}}, 0), ({"peer": small(2).state_dict()}, 2), ({"peer": small(2, levels=3).state_dict()}, 0)],
    ids=["alone", "empty", "with a peer", "of another architecture"],
)
def test_a_peer_starts_from_the_peer_if_there_was_one_like_it(
    tmp_path: Path, peer: dict[str, Any], starts_from: int
) -> None:
    torch.save({"model": small(1).state_dict(), **peer}, tmp_path / "model.pt")
    network = bundle.start_from(small(0), tmp_path / "model.pt", part="peer")
    assert same(network.state_dict(), small(starts_from).state_dict())


def test_missing_weights_are_refused_with_where_and_how_to_get_them(tmp_path: Path, error_of: ErrorOf) -> None:
    error = error_of(lambda: bundle.start_from(small(0), tmp_path / "model.pt"))
    assert error.code == "NO_WEIGHTS"
    text = str(error)
    assert text.startswith(f"{tmp_path / 'model.pt'}: the weights to start from are missing")
    assert "--pretrained null to start from random weights" in text


@pytest.mark.parametrize(
    ("settings", "why"),
    [({"out_channels": 3}, "size mismatch for head.weight"), ({"levels": 3}, "Unexpected key(s) in state_dict")],
    ids=["classes", "levels"],
)
def test_weights_of_another_network_are_refused_with_what_does_not_fit(
    tmp_path: Path, settings: dict[str, int], why: str, error_of: ErrorOf
) -> None:
    torch.save({"model": small(1, **settings).state_dict()}, tmp_path / "model.pt")
    error = error_of(lambda: bundle.start_from(small(0), tmp_path / "model.pt"))
    assert error.code == "NO_WEIGHTS"
    assert "the weights to start from are not of this network: " in str(error)
    assert why in str(error)
    assert "Take the models/model.pt of a run with the same network_def" in str(error)
    assert len(str(error)) < 600


@pytest.mark.parametrize("content", [b"", b"no weights at all", b"PK\x03\x04 cut off"])
def test_a_file_that_holds_no_weights_is_refused(tmp_path: Path, content: bytes, error_of: ErrorOf) -> None:
    (tmp_path / "model.pt").write_bytes(content)
    error = error_of(lambda: bundle.start_from(small(0), tmp_path / "model.pt"))
    assert error.code == "NO_WEIGHTS"
    assert str(tmp_path / "model.pt") in str(error)


def test_a_file_that_would_run_code_is_refused(tmp_path: Path, error_of: ErrorOf) -> None:
    torch.save({"model": Path("anything but tensors")}, tmp_path / "model.pt")
    assert error_of(lambda: bundle.start_from(small(0), tmp_path / "model.pt")).code == "NO_WEIGHTS"
