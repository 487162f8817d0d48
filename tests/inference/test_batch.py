"""Batches: what was done is known by its content, a stop loses nothing, files are called as is wanted."""

from __future__ import annotations

import csv
import itertools
import json
import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import ModuleType

import nibabel as nib
import numpy as np
import pytest
import torch
from inference_samples import convolution, write_bundle, write_nifti
from test_dicom_safety import run_cli

from semi_med.errors import InputError, ProblemsError
from semi_med.files import append_line
from semi_med.inference import batch, predict
from semi_med.inference.io import read_image
from semi_med.inference.manifest import Manifest, input_checksum
from semi_med.inference.members import Members
from semi_med.inference.naming import bids_stem
from semi_med.inference.predictor import Predictor


@pytest.fixture
def image() -> np.ndarray:
    return np.random.default_rng(3).permutation(210).astype(np.int16).reshape(5, 6, 7)


@pytest.fixture
def scans(tmp_path, image) -> Path:
    folder = tmp_path / "scans"
    folder.mkdir()
    for number, name in enumerate("abc"):
        write_nifti(folder / f"{name}.nii.gz", image + number)
    return folder


def run(bundle: Path, scans: Path, out: Path, **options):
    return predict(bundle, [scans], out, device="cpu", **options)


def skipped(rows) -> list[str]:
    return [row["case"] for row in rows if row["skipped"]]


# ---- going on ------------------------------------------------------------------------------------------------------


def test_what_was_done_is_not_done_again_and_its_rows_stay(tmp_path, bundle, scans):
    first = run(bundle, scans, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").glob("*_seg*")}
    table = (tmp_path / "out" / "volumes.csv").read_bytes()
    second = run(bundle, scans, tmp_path / "out", skip_existing=True)
    assert skipped(first) == []
    assert skipped(second) == ["a", "b", "c"]
    assert {path: path.stat().st_mtime_ns for path in before} == before
    assert (tmp_path / "out" / "volumes.csv").read_bytes() == table
    assert [{**row, "skipped": False} for row in second] == first


def test_a_changed_scan_output_weight_or_setting_is_done_again(tmp_path, bundle, scans, image):
    out = tmp_path / "out"
    run(bundle, scans, out)
    write_nifti(scans / "a.nii.gz", image * 2)
    (out / "b_seg.nii.gz").write_bytes(b"half")
    assert skipped(run(bundle, scans, out, skip_existing=True)) == ["c"]
    (out / "c_seg.nii.gz").unlink()
    assert skipped(run(bundle, scans, out, skip_existing=True)) == ["a", "b"]
    assert skipped(run(bundle, scans, out, skip_existing=True, maps=["uncertainty"])) == []
    other = write_bundle(tmp_path / "other", states={"model": convolution(1.0, bias=-0.5)})
    assert skipped(run(other, scans, out, skip_existing=True)) == []


def test_a_file_that_merely_exists_is_not_trusted(tmp_path, bundle, scans):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a_seg.nii.gz").write_bytes(b"from elsewhere")
    assert skipped(run(bundle, scans, tmp_path / "out", skip_existing=True)) == []


def test_the_same_scan_under_another_name_is_another_case(tmp_path, bundle, scans):
    run(bundle, scans, tmp_path / "out")
    (scans / "a.nii.gz").rename(scans / "z.nii.gz")
    assert skipped(run(bundle, scans, tmp_path / "out", skip_existing=True)) == ["b", "c"]


def test_a_line_that_a_crash_cut_off_costs_that_case_only(tmp_path, bundle, scans):
    run(bundle, scans, tmp_path / "out")
    journal = tmp_path / "out" / "manifest.jsonl"
    journal.write_bytes(journal.read_bytes()[:-20])
    assert skipped(run(bundle, scans, tmp_path / "out", skip_existing=True)) == ["a", "b"]
    assert skipped(run(bundle, scans, tmp_path / "out", skip_existing=True)) == ["a", "b", "c"]


def test_lines_are_added_whole_after_half_a_line(tmp_path):
    path = tmp_path / "journal"
    append_line(path, "one")
    path.write_bytes(path.read_bytes() + b"ha")
    append_line(path, "two")
    assert path.read_text().splitlines() == ["one", "ha", "two"]


@pytest.mark.skipif(sys.platform != "linux", reason="asks the system for the locks of a process")
def test_a_killed_batch_goes_on_where_it_was(tmp_path, bundle, image):
    scans, out = tmp_path / "scans", tmp_path / "out"
    scans.mkdir()
    for number in range(30):
        write_nifti(scans / f"{number:02d}.nii.gz", image + number)
    call = f"predict({str(bundle)!r}, [{str(scans)!r}], {str(out)!r}, device='cpu')"
    script = f"from semi_med.inference import predict; {call}"
    child = subprocess.Popen([sys.executable, "-W", "ignore", "-c", script])
    journal = out / "manifest.jsonl"
    until = time.monotonic() + 300
    while time.monotonic() < until and (not journal.exists() or journal.read_bytes().count(b"\n") < 5):
        time.sleep(0.005)
    child.send_signal(signal.SIGKILL)
    child.wait()
    done = journal.read_bytes().count(b"\n")
    assert 5 <= done < 30
    (out / ".semi_med_left.tmp").write_bytes(b"half a file")
    rows = run(bundle, scans, out, skip_existing=True)
    assert len(rows) == 30
    assert all(row["status"] == "done" for row in rows)
    assert len(skipped(rows)) == done
    whole = run(bundle, scans, tmp_path / "unbroken")
    assert [row["outputs"] for row in rows] == [row["outputs"] for row in whole]
    assert not list(out.glob(".*"))


def test_only_what_a_run_left_itself_is_removed(tmp_path, bundle, scans):
    names = [f"{place}.semi_med_x.tmp" for place in ("", "maps/", "sub-1/anat/", "other/")]
    for name in names:
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(b"half a file")
    run(bundle, scans, tmp_path / "out")
    assert [(tmp_path / "out" / name).exists() for name in names] == [False, False, False, True]


def test_only_a_segmentation_that_an_earlier_run_wrote_for_the_case_is_removed(tmp_path, bundle, scans):
    out = tmp_path / "out"
    run(bundle, scans, out)
    for name in "abc":
        (out / f"{name}_seg.dcm").write_bytes(b"of somebody")
    journal = out / "manifest.jsonl"
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    lines[0]["outputs"]["a_seg.dcm"] = lines[1]["outputs"]["c_seg.dcm"] = "0" * 64
    journal.write_text("".join(f"{json.dumps(line)}\n" for line in lines))
    run(bundle, scans, out)
    assert [(out / f"{name}_seg.dcm").exists() for name in "abc"] == [False, True, True]


@pytest.mark.parametrize("name", ["a_seg.dcm", "maps/a_uncertainty.nii.gz"])
def test_no_file_of_a_case_may_be_an_input(tmp_path, bundle, scans, name):
    taken = tmp_path / "out" / name
    taken.parent.mkdir(parents=True)
    taken.write_bytes((scans / "b.nii.gz").read_bytes())
    cases = {"a": [scans / "a.nii.gz"], "b": [taken]}
    with pytest.raises(ProblemsError, match=f"{taken.name} would overwrite an input"):
        predict(bundle, [], tmp_path / "out", device="cpu", cases=cases, maps=["uncertainty"])
    assert taken.read_bytes() == (scans / "b.nii.gz").read_bytes()


def test_two_runs_do_not_write_to_one_folder(tmp_path, bundle, scans):
    (tmp_path / "out").mkdir()
    held = Manifest(tmp_path / "out", {})
    with pytest.raises(InputError, match="another run is writing to this folder") as caught:
        run(bundle, scans, tmp_path / "out")
    assert caught.value.code == "LOCKED"
    held.close()
    assert len(run(bundle, scans, tmp_path / "out")) == 3


def test_on_windows_a_byte_behind_the_lines_is_locked(tmp_path, monkeypatch):
    calls = []

    class Windows(ModuleType):
        LK_NBLCK = 2

        def locking(self, descriptor, mode, count):
            calls.append((os.lseek(descriptor, 0, os.SEEK_CUR), mode, count))
            if len(calls) > 1:
                raise PermissionError(13, "Permission denied")

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", Windows("msvcrt"))
    held = Manifest(tmp_path, {})
    with pytest.raises(InputError, match="another run is writing to this folder"):
        Manifest(tmp_path, {})
    held.add("a", "0", {"outputs": {}})
    assert calls == [(2**30, 2, 1)] * 2
    assert held.path.stat().st_size < 1000


def test_the_content_of_a_folder_counts_and_not_its_names(tmp_path):
    for name, files in (("one", ("a", "b")), ("two", ("x/c", "d")), ("three", ("a", "b", "e"))):
        for place, file in enumerate(files):
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bytes([place]))
    one, two, three = (input_checksum([tmp_path / name]) for name in ("one", "two", "three"))
    assert one == two != three


# ---- a hundred, seven of them bad ----------------------------------------------------------------------------------


def test_of_a_hundred_with_seven_bad_93_are_written_and_7_named(tmp_path, bundle, image):
    scans = tmp_path / "scans"
    scans.mkdir()
    for number in range(100):
        write_nifti(scans / f"{number:03d}.nii", image[:3, :3, :4] + number)
    bad = {}
    for number, change in enumerate((b"", b"junk" * 200, None, "nan", "big", "cut", "affine")):
        path = scans / f"{number * 13:03d}.nii"
        content = path.read_bytes()
        if isinstance(change, bytes):
            path.write_bytes(change)
        elif change == "cut":
            path.write_bytes(content[:-7])
        elif change == "nan":
            write_nifti(path, np.full((3, 3, 3), np.nan, np.float32))
        elif change == "big":
            write_nifti(path, np.zeros((2, 2, 2, 5), np.int16))
        elif change == "affine":
            write_nifti(path, image[:3], np.diag([1000.0, 1, 1, 1]))
        else:
            path.unlink()
            path.mkdir()
        bad[path.name.removesuffix(".nii")] = change
    rows = run(bundle, scans, tmp_path / "out")
    failed = {row["case"]: row["code"] for row in rows if row["status"] == "failed"}
    assert failed.keys() == bad.keys()
    assert set(failed.values()) == {"EMPTY_FILE", "FORMAT", "NOT_A_FILE", "NONFINITE", "NDIM", "TRUNCATED", "SPACING"}
    assert len(list((tmp_path / "out").glob("*_seg.nii.gz"))) == 93
    assert [row["case"] for row in rows] == [f"{number:03d}" for number in range(100)]


def test_an_output_that_cannot_be_written_fails_its_case(tmp_path, bundle, scans):
    (tmp_path / "out" / "b_seg.nii.gz" / "folder").mkdir(parents=True)
    rows = run(bundle, scans, tmp_path / "out")
    assert [(row["status"], row["code"], row["output"]) for row in rows] == [
        ("done", None, "a_seg.nii.gz"),
        ("failed", "NOT_WRITABLE", None),
        ("done", None, "c_seg.nii.gz"),
    ]


# ---- side by side --------------------------------------------------------------------------------------------------


def test_the_next_scan_is_read_and_the_one_before_written_while_the_networks_run(tmp_path, bundle, scans, monkeypatch):
    """Each step waits until its two neighbours have begun, which only steps side by side can do."""
    begun = {name: threading.Event() for name in ("read c", "segment b", "write a")}

    def together(method, step):
        def wrapped(self, first, *arguments, **options):
            case = Path(first[0] if step == "read" else first.files[0] if step == "segment" else first.loaded.files[0])
            name = f"{step} {case.name[0]}"
            if name in begun:
                begun[name].set()
                assert all(event.wait(20) for event in begun.values())
            return method(self, first, *arguments, **options)

        return wrapped

    for method, step in (("read", "read"), ("segment", "segment"), ("finish", "write")):
        monkeypatch.setattr(Predictor, method, together(getattr(Predictor, method), step))
    rows = run(bundle, scans, tmp_path / "out")
    assert [row["status"] for row in rows] == ["done"] * 3


def test_what_is_being_written_when_ctrl_c_comes_is_finished_and_recorded(tmp_path, bundle, scans, monkeypatch):
    writes, original = threading.Event(), Predictor.finish

    def segment(self, loaded, *, original=Predictor.segment, **options):
        if loaded.files[0].endswith("b.nii.gz"):
            assert writes.wait(20)
            raise KeyboardInterrupt
        return original(self, loaded, **options)

    def finish(self, segmented):
        writes.set()
        time.sleep(0.2)
        return original(self, segmented)

    monkeypatch.setattr(Predictor, "segment", segment)
    monkeypatch.setattr(Predictor, "finish", finish)
    told: list[str] = []
    with pytest.raises(KeyboardInterrupt):
        run(bundle, scans, tmp_path / "out", report=lambda row, done, total: told.append(row["case"]))
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert [(case["case"], case["status"]) for case in record["cases"]] == [("a", "done")]
    assert told == ["a"]
    assert sorted(path.name for path in (tmp_path / "out").glob("*_seg*")) == ["a_seg.nii.gz"]
    monkeypatch.undo()
    assert skipped(run(bundle, scans, tmp_path / "out", skip_existing=True)) == ["a"]


def test_ctrl_c_is_answered_with_one_line(tmp_path, bundle, scans, monkeypatch, capsys):
    def stop(self, loaded, **options):
        raise KeyboardInterrupt

    monkeypatch.setattr(Predictor, "segment", stop)
    code = run_cli(["predict", str(bundle), str(scans), "-o", str(tmp_path / "out"), "--device", "cpu"])
    printed = capsys.readouterr()
    assert code == 130
    assert printed.err == "stopped; what is done is written; the same command with --skip-existing goes on\n"


def test_of_large_scans_no_two_are_held(tmp_path, bundle, scans, monkeypatch):
    monkeypatch.setattr(batch, "_READ_AHEAD", 100)
    steps = []
    for method in ("read", "segment", "finish"):
        original = getattr(Predictor, method)

        def noted(self, *arguments, original=original, method=method, **options):
            steps.append(method)
            return original(self, *arguments, **options)

        monkeypatch.setattr(Predictor, method, noted)
    run(bundle, scans, tmp_path / "out")
    assert steps == ["read", "segment", "finish"] * 3


def test_the_weights_are_loaded_once(tmp_path, bundle, scans, monkeypatch):
    loads = []
    original = batch.Predictor.load
    monkeypatch.setattr(batch.Predictor, "load", lambda *a, **o: loads.append(1) or original(*a, **o))
    run(bundle, scans, tmp_path / "out")
    assert loads == [1]


def test_windows_are_counted_while_the_networks_run(tmp_path, bundle, scans):
    seen = []
    run(bundle, scans / "a.nii.gz", tmp_path / "out", progress=lambda *told: seen.append(told))
    (total,) = {total for _, _, total in seen}
    assert [(case, done) for case, done, _ in seen] == [("a", number + 1) for number in range(total)]
    assert total > 1


# ---- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("image", "case", "stem"),
    [
        ("raw/sub-01/ses-2/anat/sub-01_ses-2_acq-hi_T1w.nii.gz", "x", "sub-01/ses-2/anat/sub-01_ses-2_acq-hi"),
        ("raw/sub-01/dwi/sub-01_dwi.nii.gz", "x", "sub-01/dwi/sub-01"),
        ("sub-01_space-MNI_desc-preproc_T1w.nii", "x", "sub-01/anat/sub-01"),
        ("scan 7.nii.gz", "scan 7", "sub-scan7/anat/sub-scan7"),
        ("la_0-1.nrrd", "la_0-1", "sub-la01/anat/sub-la01"),
        ("...nii", "..", "sub-unnamed/anat/sub-unnamed"),
    ],
)
def test_names_of_bids_keep_what_names_of_bids_say(image, case, stem):
    assert bids_stem(Path(image), case, Path("out")) == Path("out") / stem


def test_a_derivative_data_set_says_what_made_it_and_what_numbers_mean(tmp_path, bundle, image):
    folder = tmp_path / "raw" / "sub-01" / "anat"
    folder.mkdir(parents=True)
    write_nifti(folder / "sub-01_T1w.nii.gz", image)
    out = tmp_path / "out"
    (row,) = run(bundle, folder, out, naming="bids", maps=["probabilities", "uncertainty"])
    assert list(row["outputs"]) == [
        "sub-01/anat/sub-01_desc-semimed_dseg.nii.gz",
        "sub-01/anat/sub-01_desc-semimed_probseg.nii.gz",
        "sub-01/anat/sub-01_desc-uncertainty_map.nii.gz",
    ]
    assert all((out / name).is_file() for name in row["outputs"])
    about = json.loads((out / "dataset_description.json").read_text())
    assert about["DatasetType"] == "derivative"
    assert about["GeneratedBy"][0]["Name"] == "semi-med"
    lines = (out / "desc-semimed_dseg.tsv").read_text().splitlines()
    assert lines == ["index\tname", "0\tbackground", "1\tleft atrium"]
    assert skipped(run(bundle, folder, out, naming="bids", maps=["probabilities", "uncertainty"], skip_existing=True))


def test_two_contrasts_of_one_session_would_share_a_name(tmp_path, bundle, image):
    for name in ("sub-1_T1w", "sub-1_FLAIR"):
        write_nifti(tmp_path / f"{name}.nii", image)
    with pytest.raises(ProblemsError, match=r"desc-semimed_dseg\.nii\.gz would also be that of"):
        predict(bundle, [tmp_path / "sub-1_T1w.nii", tmp_path / "sub-1_FLAIR.nii"], tmp_path / "out", naming="bids")


@pytest.mark.parametrize(("option", "value"), [("naming", "bid"), ("maps", ["entropy"])])
def test_an_unknown_choice_is_refused(tmp_path, bundle, scans, option, value):
    with pytest.raises(InputError, match="is wanted, not"):
        run(bundle, scans, tmp_path / "out", **{option: value})


# ---- maps and measures ---------------------------------------------------------------------------------------------


def test_maps_lie_on_the_grid_of_the_scan_in_their_own_folder(tmp_path, image):
    turned = np.array([[0, 0, -2.0, 5], [-0.5, 0, 0, 1], [0, 1.0, 0, 2], [0, 0, 0, 1]])
    path = write_nifti(tmp_path / "a.nii.gz", image, turned)
    folder = write_bundle(tmp_path / "two", peer=True, states={"model": convolution(2.0), "peer": convolution(0.5)})
    maps = ["probabilities", "uncertainty", "disagreement"]
    (row,) = predict(folder, [path], tmp_path / "out", device="cpu", network="mean", maps=maps)
    assert sorted(row["outputs"]) == ["a_seg.nii.gz", *sorted(f"maps/a_{name}.nii.gz" for name in maps)]
    read = {name: nib.load(tmp_path / "out" / "maps" / f"a_{name}.nii.gz") for name in maps}
    standard = (image - image.mean()) / image.std()
    each = [1 / (1 + np.exp(-weight * standard)) for weight in (2.0, 0.5)]
    mean = (each[0] + each[1]) / 2

    def entropy(p):
        return -(p * np.log2(p) + (1 - p) * np.log2(1 - p))

    wanted = {
        "probabilities": np.stack([1 - mean, mean], axis=-1),
        "uncertainty": entropy(mean),
        "disagreement": entropy(mean) - (entropy(each[0]) + entropy(each[1])) / 2,
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(read[name].get_fdata(), values, atol=1e-5, err_msg=name)
        np.testing.assert_allclose(read[name].affine, turned)


def test_one_network_does_not_disagree_with_itself(tmp_path, bundle, scans):
    with pytest.raises(InputError, match="disagreement wants several members") as caught:
        run(bundle, scans, tmp_path / "out", maps=["disagreement"])
    assert caught.value.code == "NO_PEER"


def test_mirror_images_change_nothing_for_a_network_that_looks_at_single_voxels(tmp_path, bundle, scans):
    plain, flipped = (run(bundle, scans, tmp_path / name, flips=flips) for name, flips in (("a", False), ("b", True)))
    assert [row["voxels"] for row in plain] == [row["voxels"] for row in flipped]


def test_mirror_images_are_mirrored_back():
    torch.manual_seed(0)
    network = torch.nn.Conv3d(1, 3, 3, padding=1).requires_grad_(False)
    windows = torch.rand(1, 1, 4, 5, 6)
    found = Members([network], flips=True)(windows)
    axes = [2, 3, 4]
    chosen = [some for count in range(4) for some in itertools.combinations(axes, count)]
    wanted = sum(network(windows.flip(some)).softmax(1).flip(some) for some in chosen) / 8
    torch.testing.assert_close(found, wanted)


def test_confidence_is_the_dice_that_the_probabilities_promise_without_what_is_faint(tmp_path, bundle, image):
    image = np.where(image < 5, -400, image).astype(np.int16)  # a few voxels are far below the mean
    path = write_nifti(tmp_path / "a.nii", image)
    (row,) = predict(bundle, [path], tmp_path / "out", device="cpu")
    standard = (image - image.mean()) / image.std()
    probs = 1 / (1 + np.exp(-standard))
    inside = probs > 0.5
    assert (probs < 0.3).any()
    wanted = 2 * probs[inside].sum() / (probs[probs >= 0.3].sum() + inside.sum())
    assert row["confidence"] == pytest.approx(wanted, abs=1e-5)
    assert row["structures"]["left atrium"]["confidence"] == row["confidence"]
    with (tmp_path / "out" / "volumes.csv").open() as stream:
        (line,) = csv.DictReader(stream)
    assert float(line["confidence"]) == pytest.approx(wanted, abs=1e-4)


def test_a_calibration_says_what_dice_to_expect(tmp_path, bundle, image):
    path = write_nifti(tmp_path / "a.nii", image)
    line = {"structure": "left atrium", "slope": 2.0, "offset": -0.6}
    (tmp_path / "c.json").write_text(json.dumps({"structures": [line]}))
    (row,) = predict(bundle, [path], tmp_path / "out", device="cpu", calibration=tmp_path / "c.json")
    assert row["expected_dice"] == pytest.approx(2 * row["confidence"] - 0.6, abs=1e-5)
    assert row["structures"]["left atrium"]["expected_dice"] == row["expected_dice"]
    with (tmp_path / "out" / "volumes.csv").open() as stream:
        (found,) = csv.DictReader(stream)
    assert float(found["expected_dice"]) == pytest.approx(row["expected_dice"], abs=1e-4)


def test_structures_are_counted_and_measured_on_the_scan_as_it_was_read(tmp_path, image):
    values = np.full((7, 6, 5), 10.25, np.float32)
    values[1:3, 1:3, 1:3] = 100.5
    values[4:6, 3:5, 2:4] = 120.5
    path = write_nifti(tmp_path / "a.nii", values)
    (row,) = predict(write_bundle(tmp_path / "b"), [path], tmp_path / "out", device="cpu")
    found = row["structures"]["left atrium"]
    assert (found["voxels"], found["components"], found["touches_border"]) == (16, 2, False)
    assert found["mean_intensity"] == pytest.approx(110.5)
    assert read_image(path).array.max() == 120.5


def test_the_record_has_settings_checksums_and_times(tmp_path, bundle, scans):
    run(bundle, scans, tmp_path / "out", precision="float32")
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert {"weights_sha256", "config_sha256", "precision", "computed_in", "naming"} <= record["settings"].keys()
    assert record["settings"]["computed_in"] == "float32"
    assert [sorted(case["timings"]) for case in record["cases"]] == [["finish", "network", "read", "write"]] * 3
    assert all(len(value) == 64 for case in record["cases"] for value in case["outputs"].values())
    assert os.sep + "scans" not in json.dumps(record)


def test_voxels_of_any_name_and_no_pipes_count_for_the_checksum_of_an_input(tmp_path):
    header, voxels = tmp_path / "scan[1].mhd", tmp_path / "some voxels.raw"
    header.write_text("NDims = 3\nElementDataFile = some voxels.raw\n")
    voxels.write_bytes(b"1")
    before = input_checksum([header])
    voxels.write_bytes(b"2")
    assert input_checksum([header]) != before
    os.mkfifo(tmp_path / "pipe.nii.gz")
    assert input_checksum([tmp_path / "pipe.nii.gz"]) == input_checksum([tmp_path / "missing.nii.gz"])
