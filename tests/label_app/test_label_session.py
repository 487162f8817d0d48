"""A session of annotation over a real server, asked by MONAI Label's own client, as 3D Slicer does."""

from __future__ import annotations

import contextlib
import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from conftest import NAMES
from label_samples import AFFINE, SHAPE, TINY, write_study

pytest.importorskip("monailabel")

from live_server import Server, running
from monailabel.client.client import MONAILabelClientException


@pytest.fixture(scope="module")
def server(tmp_path_factory, bundle_folder, supervised_folder) -> Iterator[Server]:
    study = write_study(tmp_path_factory.mktemp("server") / "study", NAMES)
    with running(study, [bundle_folder, supervised_folder], TINY) as served:
        yield served


# The tests go through one session, in this order.

MODEL = "cotrain_hippocampus"


def test_the_client_sees_models_trainers_and_ways_to_choose(server):
    info = server.client.info()
    assert list(info["models"]) == list(info["trainers"]) == [MODEL, "supervised_hippocampus"]
    assert info["labels"] == ["anterior hippocampus", "posterior hippocampus"]
    assert next(iter(info["strategies"])) == "disagreement"
    assert {"random", "first"} < set(info["strategies"])
    assert info["trainers"][MODEL]["config"] == {"max_iterations": 4, "seed": 0, "start_from_last_model": True}


def test_before_the_first_training_the_client_is_told_what_to_do(server):
    with pytest.raises(MONAILabelClientException, match=r"409.*Label one scan, submit it and press Train"):
        server.client.infer(MODEL, "scan_0", {})


def test_training_without_a_label_is_answered_at_once(server):
    with pytest.raises(MONAILabelClientException, match=r"409.*no scan has a label yet"):
        server.client.train_start(MODEL, {})


def test_without_scores_the_next_scan_is_one_without_a_label(server):
    server.given = server.client.next_sample("disagreement", {})["id"]
    assert server.given in NAMES


def test_a_submitted_label_starts_no_training(server):
    server.submit("scan_0")
    time.sleep(0.5)
    with pytest.raises(MONAILabelClientException, match="No Train Tasks Found"):
        server.client.train_status()


def test_one_label_and_all_other_scans_make_a_model(server):
    status = server.train(MODEL, seed=1)
    assert status["status"] == "DONE", status
    run = json.loads((server.study / "semi_med" / MODEL / "current" / "run.json").read_text())
    assert {key: run["settings"][key] for key in ("labeled", "unlabeled", "validation", "seed")} == {
        "labeled": 1,
        "unlabeled": 7,
        "validation": 0,
        "seed": 1,
    }
    assert [path.name for path in (server.study / "semi_med" / MODEL / "rounds").iterdir()] == ["0001"]


def test_the_client_sees_how_far_the_training_is_and_its_loss(server):
    stats = server.client.info()["train_stats"][MODEL]
    assert (stats["iteration"], stats["epoch"], stats["total_epochs"], stats["round"]) == (4, 4, 4, "0001")
    assert stats["train"]["loss"] > 0
    assert "total_time" in stats


def test_the_new_model_answers_without_a_restart_on_the_grid_of_the_scan(server):
    file, params = server.client.infer(MODEL, "scan_5", {})
    mask = nib.load(file)
    assert mask.shape == SHAPE
    assert np.allclose(mask.affine, AFFINE)
    assert set(np.unique(np.asarray(mask.dataobj))) <= {0, 1, 2}
    assert params["round"] == "0001"
    assert params["label_names"] == {"anterior hippocampus": 1, "posterior hippocampus": 2}


def test_the_scan_of_the_largest_disagreement_is_next(server):
    scores = json.loads((server.study / "semi_med" / MODEL / "scores.json").read_text())
    assert sorted(scores) == NAMES[1:]
    chosen = server.client.next_sample("disagreement", {})
    waiting = [one["disagreement"] for scan, one in scores.items() if scan != server.given]  # somebody has that one
    assert chosen["disagreement"] == max(waiting)
    assert scores[chosen["id"]]["disagreement"] == chosen["disagreement"]
    assert {server.client.next_sample("random", {"seed": 2})["id"] for _ in range(3)} < set(NAMES[1:])
    assert server.client.next_sample("first", {})["id"] == "scan_1"


def test_all_scans_without_a_label_get_a_first_mask_and_none_is_final(server):
    found = server.post(f"/batch/infer/{MODEL}?images=unlabeled&run_sync=true")
    assert sorted(found) == NAMES[1:]
    for scan in NAMES[1:]:
        mask = nib.load(server.study / "labels" / "original" / f"{scan}.nii.gz")
        assert np.allclose(mask.affine, AFFINE)
    assert server.client.info()["datastore"]["completed"] == 1


def test_stop_stops_and_the_model_of_before_answers(server):
    started = server.study / "semi_med" / MODEL / "rounds" / "0002" / "data" / "data_list.json"
    server.client.train_start(MODEL, {"max_iterations": 100_000})
    server.wait(started.is_file)
    time.sleep(1)
    assert server.client.train_stop()["status"] == "STOPPED"
    server.wait(server.is_idle)
    server.wait(lambda: not _running(started.parent))
    assert server.client.infer(MODEL, "scan_5", {})[1]["round"] == "0001"


def _running(folder: Path) -> list[Path]:
    """Processes that have to do with a folder."""
    return [path for path in Path("/proc").glob("[0-9]*/cmdline") if _mentions(path, str(folder))]


def _mentions(path: Path, text: str) -> bool:
    with contextlib.suppress(OSError):
        return text.encode() in path.read_bytes()
    return False


def test_nothing_has_left_this_machine(server):
    assert not server.connections.exists()


def test_the_end_of_the_server_is_the_end_of_its_training(server):
    rounds = server.study / "semi_med" / MODEL / "rounds"
    server.client.train_start(MODEL, {"max_iterations": 100_000})
    server.wait(lambda: any(_running(one / "data") for one in rounds.iterdir()))
    server.process.send_signal(signal.SIGTERM)
    assert server.process.wait(timeout=120) == 128 + signal.SIGTERM
    until = time.monotonic() + 60
    while _running(rounds):
        assert time.monotonic() < until
        time.sleep(0.2)
