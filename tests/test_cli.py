"""The command line: what it imports, prints, returns; and how a training process is run."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import nibabel as nib
import numpy as np
import pytest
import torch

from semi_med import cli, launch
from semi_med.errors import InputError

AFFINE = np.diag([1.0, 1.0, 2.0, 1.0])


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture
def command(monkeypatch, capsys) -> Callable[..., Outcome]:
    """Run `semi-med` in this process."""

    def call(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["semi-med", *map(str, arguments)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as left:
            cli.main()
        return Outcome(left.value.code or 0, *capsys.readouterr())

    return call


def write(path: Path, array: np.ndarray) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(array, AFFINE), path)
    return path


def write_list(folder: Path, **sections: list[str]) -> Path:
    """A data list and its files: 4x4x4 images, all different, with two voxels of label."""
    tree: dict = {"name": "x", "labels": {"0": "background", "1": "left atrium"}}
    for number, (section, names) in enumerate(sections.items()):
        tree[section] = []
        for name in names:
            image = np.arange(64, dtype=np.int16).reshape(4, 4, 4) + 100 * number + 7 * len(name) + ord(name[-1])
            write(folder / "images" / f"{name}.nii.gz", image)
            entry = {"image": f"images/{name}.nii.gz"}
            if section != "unlabeled":
                label = np.zeros((4, 4, 4), np.uint8)
                label[1, 1, :2] = 1
                write(folder / "labels" / f"{name}.nii.gz", label)
                entry["label"] = f"labels/{name}.nii.gz"
            tree[section].append(entry)
    path = folder / "data_list.json"
    path.write_text(json.dumps(tree))
    return path


@pytest.fixture
def listed(tmp_path) -> Path:
    return write_list(tmp_path / "data", labeled=["a"], unlabeled=["b"], validation=["c"], test=["d", "e"])


@pytest.fixture
def bundle(tmp_path) -> Path:
    """A bundle whose network marks every voxel that is brighter than the mean."""
    folder = tmp_path / "bundle"
    network = {"_target_": "torch.nn.Conv3d", "in_channels": 1, "out_channels": 2, "kernel_size": 1}
    load = {"_target_": "LoadImaged", "keys": "image", "ensure_channel_first": True}
    config = {
        "network_def": network,
        "preprocessing": {
            "_target_": "Compose",
            "transforms": [
                load,
                {"_target_": "Orientationd", "keys": "image", "axcodes": "RAS", "labels": None},
                {"_target_": "NormalizeIntensityd", "keys": "image"},
            ],
        },
        "inferer": {
            "_target_": "semi_med.inference.ProbabilityWindowInferer",
            "roi_size": [4, 4, 4],
            "stride": [4, 4, 4],
        },
        "postprocessing": {
            "_target_": "Compose",
            "transforms": [
                {"_target_": "AsDiscreted", "keys": "pred", "argmax": True},
                {"_target_": "Invertd", "keys": "pred", "transform": "@preprocessing", "orig_keys": "image"},
            ],
        },
    }
    metadata = {"network_data_format": {"outputs": {"pred": {"channel_def": {"0": "background", "1": "left atrium"}}}}}
    state = {"weight": torch.tensor([0.0, 1.0]).reshape(2, 1, 1, 1, 1), "bias": torch.zeros(2)}
    for name, content in (("inference", config), ("metadata", metadata), ("train", {})):
        (folder / "configs").mkdir(parents=True, exist_ok=True)
        (folder / "configs" / f"{name}.json").write_text(json.dumps(content))
    (folder / "models").mkdir()
    torch.save({"model": state}, folder / "models" / "model.pt")
    return folder


# ---- imports, errors and exit codes --------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["train", "--help"], ["predict", "--help"]])
def test_help_imports_nothing_heavy(arguments):
    code = (
        "import sys\nfrom semi_med.cli import main\nsys.argv = ['semi-med', *sys.argv[1:]]\n"
        "try:\n    main()\nfinally:\n"
        "    found = {'torch', 'monai', 'numpy', 'scipy', 'nibabel', 'matplotlib'} & set(sys.modules)\n"
        "    print('imported', sorted(found))"
    )
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True)
    assert done.stdout.endswith("imported []\n")
    assert done.returncode == 0


def test_an_error_is_one_last_line_without_a_traceback(command, tmp_path):
    from semi_med.recipes.compose import tasks

    done = command("compose", "cotrain", "heart", tmp_path)
    assert done.code == 2
    assert done.err == f"error: there is no task 'heart'. Choose one of {', '.join(tasks())}\n"


def test_debug_shows_the_traceback_before_the_error(command, tmp_path):
    done = command("--debug", "compose", "cotrain", "heart", tmp_path)
    assert "Traceback" in done.err
    assert done.err.strip().splitlines()[-1].startswith("error: there is no task 'heart'")
    assert done.code == 2


def test_debug_of_one_call_does_not_outlast_it(command, tmp_path):
    command("--debug", "compose", "cotrain", "heart", tmp_path)
    assert "Traceback" not in command("compose", "cotrain", "heart", tmp_path).err


def test_many_problems_are_printed_whole(command, tmp_path):
    done = command("predict", tmp_path, tmp_path / "a.nii.gz", tmp_path / "b.nii.gz", "-o", tmp_path / "out")
    assert done.err.count("this does not exist") == 2
    assert done.err.startswith("error: inputs: 2 problems found\n  - ")


def test_a_bug_has_an_exit_code_of_its_own(command, tmp_path, monkeypatch):
    monkeypatch.setattr("semi_med.recipes.compose.compose", lambda *given: 1 // 0)
    done = command("compose", "cotrain", "la", tmp_path)
    assert done.code == 5
    assert done.err.startswith("error: unexpected ZeroDivisionError")


def test_ctrl_c_ends_with_130(command, tmp_path, monkeypatch):
    def interrupted(*given):
        raise KeyboardInterrupt

    monkeypatch.setattr("semi_med.recipes.compose.compose", interrupted)
    assert command("compose", "cotrain", "la", tmp_path).code == 130


def test_an_unknown_option_is_refused(command, tmp_path):
    assert command("compose", "cotrain", "la", tmp_path, "--tsak").code == 2


# ---- prepare, validate, compose, info ------------------------------------------------------------------------------


def test_the_phantom_is_drawn(command, tmp_path, monkeypatch):
    from semi_med.datasets import phantom

    monkeypatch.setattr(phantom, "prepare", functools.partial(phantom.prepare, cases={"labeled": 1}))
    done = command("prepare", "phantom", tmp_path / "data", "--seed", 3)
    assert (done.code, done.out) == (0, f"{tmp_path / 'data' / 'data_list.json'}\n")
    assert json.loads((tmp_path / "data" / "data_list.json").read_text())["description"].startswith("Seed 3, size demo")


def test_cropped_scans_of_la_are_prepared(command, tmp_path, listed):
    done = command("prepare", "la", listed.parent, tmp_path / "la")
    assert done.code == 0
    assert done.out.startswith(f"{tmp_path / 'la'}: 5 cases (5 written, 0 were there)\nwithout a label: 1 (b)\n")


def test_a_sound_data_list_is_said_to_be_sound(command, listed):
    done = command("validate", listed, "--dataset-dir", listed.parent)
    assert (done.code, done.out.splitlines()) == (
        0,
        [
            "voxels: 4 x 4 x 4",
            "mm: 1 x 1 x 2",
            "orientation: RAS (5)",
            "label values: 0 in 4 labels (96.875% of all voxels), 1 in 4 labels (3.125% of all voxels)",
            "no problems; cases read: 1 labeled, 1 unlabeled, 1 validation, 2 test",
        ],
    )


def test_all_problems_are_in_one_table(command, listed):
    (listed.parent / "images" / "a.nii.gz").unlink()
    (listed.parent / "labels" / "c.nii.gz").unlink()
    done = command("validate", listed, "--dataset-dir", listed.parent)
    assert done.code == 2
    assert done.out.count("NOT_FOUND") == 2
    assert "2 problems; cases read: 1 labeled" in done.out


def test_a_long_path_is_never_cut_off(command, tmp_path):
    name = "x" * 150
    listed = write_list(tmp_path, labeled=[name], unlabeled=["b"], validation=["c"], test=["d"])
    (tmp_path / "images" / f"{name}.nii.gz").unlink()
    assert "…" not in command("validate", listed, "--dataset-dir", tmp_path).out


def test_problems_are_given_to_machines(command, listed):
    (listed.parent / "images" / "a.nii.gz").unlink()
    done = command("validate", listed, "--dataset-dir", listed.parent, "--json")
    problems = json.loads(done.out)["problems"]
    assert [problem["code"] for problem in problems] == ["NOT_FOUND"]
    assert problems[0]["where"] == str(listed.parent / "images" / "a.nii.gz")
    assert done.code == 2


def test_a_list_that_breaks_the_rules_is_a_finding_too(command, listed):
    listed.write_text('{"name": "x", "labels": {"0": "background"}, "lebeled": []}')
    done = command("validate", listed, "--dataset-dir", listed.parent, "--json")
    assert {problem["code"] for problem in json.loads(done.out)["problems"]} >= {"UNKNOWN_KEY"}
    assert done.code == 2


def test_the_test_section_may_be_left_out(command, listed):
    for name in ("d", "e"):
        (listed.parent / "images" / f"{name}.nii.gz").unlink()
    assert command("validate", listed, "--dataset-dir", listed.parent).code == 2
    assert command("validate", listed, "--dataset-dir", listed.parent, "--without-test").code == 0


def test_a_bundle_is_composed(command, tmp_path):
    done = command("compose", "supervised", "phantom", tmp_path / "b")
    assert (done.code, done.out) == (0, f"{tmp_path / 'b'}\n")
    assert json.loads((tmp_path / "b" / "configs" / "metadata.json").read_text())["bundle"] == "supervised_phantom"


def test_info_names_versions_and_device(command):
    done = command("info")
    assert f"torch: {torch.__version__}\n" in done.out
    assert "\ndevice: c" in done.out


# ---- train ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def launched(monkeypatch) -> list[list[str]]:
    commands: list[list[str]] = []
    monkeypatch.setattr(launch, "run", lambda command: commands.append(command) or 3)
    return commands


def test_train_runs_the_bundle_and_passes_its_exit_code_on(command, launched, bundle, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = command(
        "train", bundle, "--dataset-dir", "data", "--set", "method#cutmix=false", "--set", "seed=1", "--resume"
    )
    wanted = ["-m", "monai.bundle", "run", "training", "--config_file", str(bundle / "configs" / "train.json")]
    wanted += ["--dataset_dir", str(tmp_path / "data"), "--resume", "True", "--method#cutmix", "false", "--seed", "1"]
    assert launched == [[sys.executable, *wanted]]
    assert done.code == 3


def test_the_command_is_printed_as_one_would_type_it(command, launched, bundle):
    assert command("train", bundle, "--set", "crop_size=[4, 4, 4]").err == (
        f"python -m monai.bundle run training --config_file {bundle}/configs/train.json --crop_size '[4, 4, 4]'\n"
    )


@pytest.mark.parametrize("text", ["seed", "=3", "--=3"])
def test_a_setting_without_name_or_value_is_refused(text):
    with pytest.raises(InputError, match="NAME=VALUE"):
        launch.parse_setting(text)


def test_a_folder_without_a_training_is_no_bundle(command, tmp_path):
    done = command("train", tmp_path)
    assert done.code == 2
    assert f"error: {tmp_path}/configs/train.json: this file of the bundle is missing" in done.err


@pytest.mark.parametrize(("end", "code"), [("sys.exit(3)", 3), ("os.kill(os.getpid(), signal.SIGKILL)", 137)])
def test_a_process_ends_with_its_own_exit_code(end, code):
    assert launch.run([sys.executable, "-c", f"import os, signal, sys; {end}"]) == code


def test_sigterm_is_passed_on_and_waited_for(tmp_path):
    child = (
        "import pathlib, signal, sys, time\n"
        f"place = pathlib.Path({str(tmp_path)!r})\n"
        "def end(*_):\n    time.sleep(0.2); (place / 'checkpoint').touch(); sys.exit(143)\n"
        "signal.signal(signal.SIGTERM, end)\n(place / 'ready').touch()\ntime.sleep(60)"
    )

    def terminate() -> None:
        while not (tmp_path / "ready").exists():
            time.sleep(0.01)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=terminate).start()
    before = signal.getsignal(signal.SIGTERM)
    assert launch.run([sys.executable, "-c", child]) == 143
    assert (tmp_path / "checkpoint").exists()
    assert signal.getsignal(signal.SIGTERM) is before


# ---- predict and evaluate ------------------------------------------------------------------------------------------


def test_predict_lists_what_it_wrote_and_counts_cases(command, bundle, listed, tmp_path):
    done = command("predict", bundle, listed.parent / "images", "-o", tmp_path / "out", "--device", "cpu")
    assert done.code == 0
    names = [*(f"{case}_seg.nii.gz" for case in "abcde"), "volumes.csv", "run.json"]
    assert done.out.splitlines() == [str(tmp_path / "out" / name) for name in names]
    assert all((tmp_path / "out" / name).is_file() for name in names)
    assert "[5/5] e: left atrium 0.1 ml (" in done.err  # 32 voxels of 2 mm3


def test_predict_goes_on_by_checksums_and_says_so(command, bundle, listed, tmp_path):
    arguments = ("predict", bundle, listed.parent / "images", "-o", tmp_path / "out", "--device", "cpu")
    assert command(*arguments, "--uncertainty").code == 0
    done = command(*arguments, "--uncertainty", "--skip-existing")
    assert (done.code, "5 of 5 cases had been done before" in done.err) == (0, True)
    assert str(tmp_path / "out" / "maps" / "a_uncertainty.nii.gz") in done.out.splitlines()
    assert done.err.count("(done before)") == 5


def test_a_failed_case_does_not_stop_the_others_and_shows_in_the_exit_code(command, bundle, listed, tmp_path):
    (listed.parent / "images" / "b.nii.gz").write_bytes(b"")
    done = command("predict", bundle, listed.parent / "images", "-o", tmp_path / "out", "--device", "cpu")
    assert done.code == 1
    assert "[2/5] b: FAILED: " in done.err
    assert done.err.strip().splitlines()[-1].startswith("error: 1 of 5 cases failed")
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 4


def test_a_data_list_chooses_what_is_predicted(command, bundle, listed, tmp_path):
    images = listed.parent / "images"
    done = command("predict", bundle, images, "-o", tmp_path / "out", "--device", "cpu", "--data-list", listed)
    assert done.code == 0
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["d_seg.nii.gz", "e_seg.nii.gz"]


def test_cases_of_a_list_are_predicted_and_measured_under_their_own_names(command, bundle, tmp_path):
    test = []
    for number, case in enumerate(("p1", "p2")):
        image = np.arange(64, dtype=np.int16).reshape(4, 4, 4) + 100 * number
        write(tmp_path / f"data/{case}/imaging.nii.gz", image)
        write(tmp_path / f"data/{case}/segmentation.nii.gz", (image > image.mean()).astype(np.uint8))
        test.append({"image": f"{case}/imaging.nii.gz", "label": f"{case}/segmentation.nii.gz", "case": case})
    path = tmp_path / "list.json"
    path.write_text(json.dumps({"name": "x", "labels": {"0": "background", "1": "left atrium"}, "test": test}))
    chosen = ("--data-list", path)
    done = command("predict", bundle, tmp_path / "data", "-o", tmp_path / "out", "--device", "cpu", *chosen)
    assert done.code == 0, done.err
    assert sorted(path.name for path in (tmp_path / "out").glob("*.nii.gz")) == ["p1_seg.nii.gz", "p2_seg.nii.gz"]
    done = command("evaluate", tmp_path / "out", tmp_path / "data", "-o", tmp_path / "t.csv", *chosen)
    assert done.code == 0, done.err
    assert [row.split(",")[0] for row in (tmp_path / "t.csv").read_text().splitlines()[1:]] == ["p1", "p2"]


def test_a_scan_of_the_section_that_is_not_given_is_named(command, bundle, listed, tmp_path):
    image = listed.parent / "images" / "d.nii.gz"
    done = command("predict", bundle, image, "-o", tmp_path / "out", "--device", "cpu", "--data-list", listed)
    assert done.code == 2
    assert "1 of the 2 scans of the section test are not among the inputs: e.nii.gz" in done.err


def test_a_3d_bundle_says_that_a_picture_is_no_volume(command, bundle, tmp_path):
    from PIL import Image

    Image.new("L", (6, 5)).save(tmp_path / "a.png")
    done = command("predict", bundle, tmp_path / "a.png", "-o", tmp_path / "out", "--device", "cpu")
    assert done.code == 1
    assert "[1/1] a: FAILED: the network is 3D and wants a volume, this is a picture" in done.err


@pytest.fixture
def predicted(listed, tmp_path) -> Path:
    """Predictions of the test section: d perfect, e two of its two voxels and two more."""
    array = np.zeros((4, 4, 4), np.uint8)
    array[1, 1, :2] = 1
    write(tmp_path / "out" / "d_seg.nii.gz", array)
    array[2, 1, :2] = 1
    write(tmp_path / "out" / "e_seg.nii.gz", array)
    return tmp_path / "out"


def test_evaluate_prints_a_summary_with_units(command, predicted, listed, tmp_path):
    done = command("evaluate", predicted, listed.parent / "labels", "-o", tmp_path / "t.csv", "--data-list", listed)
    assert done.code == 0
    dice = next(line for line in done.out.splitlines() if " Dice " in line).split("│")
    assert [cell.strip() for cell in dice[1:5]] == ["left atrium", "Dice", "2", "0.8333"]
    assert "HD95 [mm]" in done.out and "HD95 [voxels]" in done.out
    assert done.out.splitlines()[-2:] == [str(tmp_path / "t.csv"), str(tmp_path / "t_summary.json")]


def test_what_the_list_ignores_is_counted_by_validate_and_left_out_by_evaluate(command, predicted, listed, tmp_path):
    array = np.zeros((4, 4, 4), np.uint8)
    array[1, 1, :2] = 1
    array[2] = 255  # where e is predicted too large
    write(listed.parent / "labels" / "e.nii.gz", array)
    content = json.loads(listed.read_text())
    assert "this has 255 (16 voxels)" in command("validate", listed, "--json").out
    listed.write_text(json.dumps({**content, "ignored": 255}))
    looked = command("validate", listed)
    assert looked.code == 0
    assert "note: IGNORED: 16 voxels (6.25%) in 1 of 4 labels are 255 and count nowhere" in looked.out
    done = command("evaluate", predicted, listed.parent / "labels", "-o", tmp_path / "t.csv", "--data-list", listed)
    dice = next(line for line in done.out.splitlines() if " Dice " in line).split("│")
    assert [cell.strip() for cell in dice[1:5]] == ["left atrium", "Dice", "2", "1.0000"]
    told = ("evaluate", predicted, listed.parent / "labels", "-o", tmp_path / "t.csv", "--allow-missing")
    assert "255" in command(*told).out and "255" not in command(*told, "--ignored", "255").out


def test_missing_predictions_stop_an_evaluation_unless_allowed(command, predicted, listed, tmp_path):
    given = ("evaluate", predicted, listed.parent / "labels", "-o", tmp_path / "t.csv")
    assert command(*given).code == 2
    done = command(*given, "--allow-missing")
    assert done.code == 0
    assert "2 labels without a prediction are counted as undefined" in done.err


def test_a_case_that_cannot_be_measured_shows_in_the_exit_code(command, predicted, listed, tmp_path):
    write(predicted / "e_seg.nii.gz", np.zeros((5, 4, 4), np.uint8))
    done = command("evaluate", predicted, listed.parent / "labels", "-o", tmp_path / "t.csv", "--data-list", listed)
    assert done.code == 1
    assert done.err.strip().splitlines()[-1] == "error: 1 cases could not be measured, see above"


def test_what_is_so_of_all_pictures_is_said_once_while_predicting(capsys):
    from semi_med.cli_text import case_line

    show = case_line()
    row = {"status": "done", "volumes_ml": {}, "voxels": {"disc": 0}, "seconds": 1.0, "error": None}
    for number, case in enumerate("ab", start=1):
        warnings = ["PICTURE: no place in space", "EMPTY: no voxel is disc"]
        show({**row, "case": case, "warnings": warnings}, number, 2)
    said = capsys.readouterr().err
    assert (said.count("PICTURE"), said.count("EMPTY")) == (1, 2)


def test_the_time_left_follows_from_the_cases_that_took_some(capsys, monkeypatch):
    from semi_med import cli_text

    times = iter([100.0, 100.1, 100.2, 110.2, 130.2])
    monkeypatch.setattr(cli_text.time, "monotonic", lambda: next(times))
    show = cli_text.case_line()
    row = {"case": "a", "volumes_ml": {}, "voxels": {}, "seconds": 1.0, "error": "no", "warnings": [], "status": "done"}
    show({**row, "skipped": True}, 1, 10)
    show({**row, "status": "failed"}, 2, 10)
    show(row, 3, 10)  # 10 s
    show(row, 4, 10)  # 20 s
    said = capsys.readouterr().err.splitlines()
    assert [line.partition(", ")[2] for line in said] == ["", "", "0:01:10 left)", "0:01:30 left)"]
