"""What configurations call: where the bundle is, whether its settings, data and output can be used."""

import json
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from semi_med import bundle
from semi_med.bundle_settings import changed_settings, merged, running_folder, running_parser
from semi_med.errors import InputError, ProblemsError, TrainingError

ErrorOf = Callable[[Callable[[], object]], Any]


@pytest.fixture
def own_bundle(tiny_bundle: Path, tmp_path: Path) -> Path:
    shutil.copytree(tiny_bundle, tmp_path / "own")
    return tmp_path / "own"


# ---- where the bundle is -------------------------------------------------------------------------------------------


def test_the_working_directory_is_the_bundle_if_it_is_one(own_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(own_bundle)
    assert bundle.find_root("cotrain_la") == str(own_bundle.resolve())


def test_from_elsewhere_the_committed_bundle_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert Path(bundle.find_root("cotrain_la")) == Path(__file__).parents[1] / "bundles" / "cotrain_la"


def test_the_bundle_of_the_configuration_that_is_run_comes_first(
    own_bundle: Path, tiny_bundle: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from monai.bundle import ConfigWorkflow

    monkeypatch.chdir(tiny_bundle)
    workflow = ConfigWorkflow(
        config_file=str(own_bundle / "configs" / "train.json"),
        init_id="only_the_root",
        logging_file=False,
        **{"only_the_root": ["$@bundle_root"]},
    )
    assert workflow.initialize() == [str(own_bundle.resolve())]


def test_a_folder_of_another_bundle_is_not_taken(
    own_bundle: Path, monkeypatch: pytest.MonkeyPatch, error_of: ErrorOf
) -> None:
    monkeypatch.chdir(own_bundle)
    error = error_of(lambda: bundle.find_root("fixmatch_spleen"))
    assert error.code == "BUNDLE_ROOT"
    assert "--bundle_root" in str(error)


def test_outside_of_a_run_there_is_no_running_configuration() -> None:
    assert running_parser() is None
    assert running_folder() is None


# ---- errors on the command line ------------------------------------------------------------------------------------


class Exited(Exception):
    """Stands for the end of the process."""


@pytest.fixture
def explain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[[Exception], Any]:
    """What a failure prints, and the exit code."""

    def exit_with(code: int) -> None:
        raise Exited(code)

    monkeypatch.setattr("os._exit", exit_with)
    monkeypatch.setattr("logging.shutdown", lambda: None)

    def call(error: Exception) -> tuple[str, int]:
        try:
            try:
                raise error
            except Exception as inner:
                raise RuntimeError("Failed to instantiate component 'x' with keywords: y") from inner
        except RuntimeError as wrapped:
            with pytest.raises(Exited) as exited:
                bundle._explain(type(wrapped), wrapped, wrapped.__traceback__)
        return capsys.readouterr().err, exited.value.args[0]

    return call


def test_an_error_of_ours_is_shown_alone(explain: Callable[[Exception], tuple[str, int]]) -> None:
    said, code = explain(InputError("there is no scan", where="x.nii", fix="Look again", code="MISSING"))
    assert said == "\nerror: x.nii: there is no scan. Look again\n"
    assert code == 2


def test_training_that_cannot_go_on_exits_with_3(explain: Callable[[Exception], tuple[str, int]]) -> None:
    assert explain(TrainingError("the loss is not finite", code="NOT_FINITE"))[1] == 3


def test_any_other_error_keeps_its_traceback_and_ends_with_its_cause(
    explain: Callable[[Exception], tuple[str, int]],
) -> None:
    said, code = explain(ZeroDivisionError("division by zero"))
    assert "Traceback" in said
    assert said.endswith("\nerror: ZeroDivisionError: division by zero\n")
    assert code == 1


def test_called_from_python_errors_are_not_touched(monkeypatch: pytest.MonkeyPatch) -> None:
    hook = sys.excepthook
    bundle.explain_errors()
    assert sys.excepthook is hook


# ---- settings ------------------------------------------------------------------------------------------------------


def test_overlays_are_laid_over_each_other_as_monai_does(own_bundle: Path) -> None:
    from monai.bundle import ConfigParser

    names = ("train", "evaluate")
    theirs = ConfigParser.load_config_files([str(own_bundle / "configs" / f"{name}.json") for name in names])
    parser = ConfigParser()
    for key, value in theirs.items():
        parser[key] = value
    ours = merged(own_bundle, *names)
    assert ours["validate"]["inferer"] == parser["validate"]["inferer"]
    assert ours["validate"]["handlers"] == parser["validate"]["handlers"]
    assert ours.keys() == {key for key in parser.config if key != "_meta_"}


def test_a_bundle_without_configurations_is_refused(tmp_path: Path, error_of: ErrorOf) -> None:
    assert error_of(lambda: merged(tmp_path)).code == "BUNDLE"
    assert error_of(lambda: merged(tmp_path, "train")).code == "BUNDLE"


def test_outside_of_a_run_nothing_was_changed(own_bundle: Path) -> None:
    assert changed_settings(own_bundle, "train") == {}


# ---- data ----------------------------------------------------------------------------------------------------------


def test_sections_are_read_anew_when_the_list_has_changed(tiny_data: Any, tmp_path: Path) -> None:
    path = tmp_path / "list.json"
    content = json.loads(tiny_data.data_list.read_text())
    path.write_text(json.dumps(content))
    assert len(bundle.load_sections(path, tiny_data.folder)["labeled"]) == 3
    content["labeled"].pop()
    path.write_text(json.dumps(content))
    assert len(bundle.load_sections(path, tiny_data.folder)["labeled"]) == 2


def test_labels_to_monitor_are_given_only_on_request(tiny_data: Any) -> None:
    plain = bundle.load_sections(tiny_data.data_list, tiny_data.folder)["unlabeled"]
    watched = bundle.load_sections(tiny_data.data_list, tiny_data.folder, monitor=True)["unlabeled"]
    assert not any("monitor_label" in item or "label" in item for item in plain)
    assert all("monitor_label" in item for item in watched)


def sections_of(tiny_data: Any) -> dict[str, Any]:
    return bundle.load_sections(tiny_data.data_list, tiny_data.folder)


def check(tiny_data: Any, *, options: dict[str, bool] | None = None, **changes: Any) -> None:
    sections = {**sections_of(tiny_data), **changes}
    bundle.check_data(
        *(sections[name] for name in ("labeled", "unlabeled", "validation")),
        classes=2,
        data_list_file=tiny_data.data_list,
        dataset_dir=tiny_data.folder,
        **(options or {}),
    )


def test_good_data_pass_without_opening_test_labels(tiny_data: Any) -> None:
    check(tiny_data)


def test_a_test_case_among_the_unlabeled_is_a_leak(tiny_data: Any) -> None:
    sections = sections_of(tiny_data)
    leak = {key: value for key, value in sections["test"][0].items() if key != "label"}
    with pytest.raises(ProblemsError) as found:
        check(tiny_data, unlabeled=[*sections["unlabeled"], leak])
    assert [problem.code for problem in found.value.problems] == ["LEAKAGE"]


def test_a_test_case_among_the_unlabeled_can_be_meant(tiny_data: Any) -> None:
    sections = sections_of(tiny_data)
    shared = {key: value for key, value in sections["test"][0].items() if key != "label"}
    check(tiny_data, options={"transductive": True}, unlabeled=[*sections["unlabeled"], shared])


def test_every_problem_of_the_data_is_told_at_once(tiny_data: Any) -> None:
    sections = sections_of(tiny_data)
    labeled, validation = ([dict(item) for item in sections[name]] for name in ("labeled", "validation"))
    labeled[0]["image"] += ".missing.nii.gz"
    validation[0]["label"] += ".missing.nii.gz"
    with pytest.raises(ProblemsError, match="2 problems found"):
        check(tiny_data, labeled=labeled, validation=validation)


def test_the_channels_of_an_only_file_are_those_that_the_list_names(tmp_path: Path) -> None:
    import nibabel as nib
    import numpy as np

    random = np.random.default_rng(0)
    label = np.zeros((6, 5, 4), np.uint8)
    label[1:3, 1:3, 1:3] = 1
    nib.save(nib.Nifti1Image(random.normal(size=(6, 5, 4, 2)).astype(np.float32), np.eye(4)), tmp_path / "a.nii.gz")
    nib.save(nib.Nifti1Image(label, np.eye(4)), tmp_path / "a_seg.nii.gz")
    path = tmp_path / "list.json"
    head = {"name": "two", "modality": {"0": "T1", "1": "T2"}, "labels": {"0": "background", "1": "organ"}}
    path.write_text(json.dumps({**head, "labeled": [{"image": "a.nii.gz", "label": "a_seg.nii.gz"}]}))
    sections = bundle.load_sections(path, tmp_path)
    bundle.check_data(
        sections["labeled"], [], [], classes=2, data_list_file=path, dataset_dir=tmp_path, needs_unlabeled=False
    )


def test_what_the_list_ignores_may_be_in_labels_of_a_training(tiny_data: Any, tmp_path: Path) -> None:
    folder = tmp_path / "data"
    shutil.copytree(tiny_data.folder, folder)
    content = json.loads(tiny_data.data_list.read_text())
    path = folder / content["labeled"][0]["label"]
    drawn = nib.load(path)
    array = np.asarray(drawn.dataobj).astype(np.uint8)
    array[:2] = 255
    nib.save(nib.Nifti1Image(array, drawn.affine), path)
    data = replace(tiny_data, folder=folder, data_list=folder / "data_list.json")
    with pytest.raises(ProblemsError, match="this has 255"):
        check(data)
    data.data_list.write_text(json.dumps({**content, "ignored": 255}))
    check(data)


def test_overridden_cases_are_not_measured_against_the_lists_test_section(tiny_data: Any) -> None:
    """MONAI Label brings cases of its own; the data list of the bundle says nothing about them."""
    sections = sections_of(tiny_data)
    image = sections["test"][0]["image"]
    check(
        tiny_data, labeled=sections["labeled"][:1], unlabeled=[{"image": image, "case": "case_8", "subject": "case_8"}]
    )


def test_weights_that_are_missing_are_asked_for(tmp_path: Path, error_of: ErrorOf) -> None:
    error = error_of(lambda: bundle.check_weights(tmp_path / "model.pt"))
    assert error.code == "NO_WEIGHTS"
    (tmp_path / "model.pt").touch()
    bundle.check_weights(tmp_path / "model.pt")


def test_scans_of_a_folder_are_sorted_and_nothing_else_is_taken(tmp_path: Path) -> None:
    for name in ("b.nii.gz", "a.nii", "c.mha", "notes.txt", ".hidden"):
        (tmp_path / name).touch()
    assert [Path(item["image"]).name for item in bundle.scans_of(tmp_path)] == ["a.nii", "b.nii.gz", "c.mha"]


@pytest.mark.parametrize("folder", ["empty", "missing"])
def test_a_folder_without_scans_is_refused(tmp_path: Path, folder: str, error_of: ErrorOf) -> None:
    (tmp_path / "empty").mkdir()
    error = error_of(lambda: bundle.scans_of(tmp_path / folder))
    assert "no scan" in str(error)
    assert "--dataset_dir" in str(error)


# ---- the run's folder ----------------------------------------------------------------------------------------------


def test_a_run_in_the_bundle_itself_copies_nothing(own_bundle: Path) -> None:
    before = {path: path.read_bytes() for path in own_bundle.rglob("*") if path.is_file()}
    bundle.prepare_run(own_bundle, own_bundle, settings={"device": "cpu"})
    after = {path: path.read_bytes() for path in own_bundle.rglob("*") if path.is_file()}
    record = own_bundle / "run.json"
    assert after.pop(record)
    assert after == before


def test_a_device_that_is_not_there_is_refused(own_bundle: Path, tmp_path: Path, error_of: ErrorOf) -> None:
    import torch

    if torch.cuda.is_available():
        pytest.skip("there is a CUDA device")
    error = error_of(lambda: bundle.prepare_run(own_bundle, tmp_path / "run", settings={"device": "cuda:0"}))
    assert "--device cpu" in str(error)
    assert not (tmp_path / "run").exists()


def test_only_the_first_of_several_processes_writes(
    own_bundle: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RANK", "1")
    bundle.prepare_run(own_bundle, tmp_path / "run", settings={"device": "cpu"})
    assert not (tmp_path / "run").exists()


def test_resuming_leaves_the_record_of_the_run_alone(own_bundle: Path) -> None:
    bundle.prepare_run(own_bundle, own_bundle, settings={"device": "cpu", "seed": 0})
    (own_bundle / "checkpoints").mkdir()
    (own_bundle / "checkpoints" / "iteration_00000001.pt").touch()
    bundle.prepare_run(own_bundle, own_bundle, settings={"device": "cpu", "seed": 7}, resume=True)
    assert json.loads((own_bundle / "run.json").read_text())["settings"]["seed"] == 0


def test_names_of_a_batch_are_those_of_its_cases() -> None:
    assert bundle.names_of([{"case": "a", "image": 1}, {"case": "b"}]) == [
        {"filename_or_obj": "a"},
        {"filename_or_obj": "b"},
    ]


@pytest.mark.parametrize("monitor", [False, True])
def test_labelled_cases_can_be_learnt_from_as_unlabelled_ones_too(monitor: bool) -> None:
    sections = {"labeled": [{"image": "a", "label": "la", "case": "a"}], "unlabeled": [{"image": "b", "case": "b"}]}
    first, second = bundle.unlabeled_with_labeled(sections, monitor=monitor)
    assert first == {"image": "b", "case": "b"}
    assert second == {"image": "a", "case": "a", **({"monitor_label": "la"} if monitor else {})}
    assert sections["labeled"][0]["label"] == "la"
