"""The guard round the real MONAI Label, asked through MONAI Label's own client over a real server."""

from __future__ import annotations

import itertools
import json
import os
import socket
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("monailabel")

from guard_samples import MAIN, SHAPE, TOKEN, image_bytes, label_bytes, serving, write_studies, zipped

from semi_med.inference.io import read_label
from semi_med.label_app.guard import Limits, guarded
from tests.corpus.label_requests import Requests, judge, send

MODEL = "threshold"


@pytest.fixture(scope="module")
def studies(tmp_path_factory):
    folder = tmp_path_factory.mktemp("studies") / "store"
    write_studies(folder)
    return folder


@pytest.fixture(scope="module")
def stock(tmp_path_factory, studies):
    from monailabel.config import settings

    app_dir = tmp_path_factory.mktemp("app")
    (app_dir / "main.py").write_text(MAIN)
    settings.MONAI_LABEL_APP_DIR, settings.MONAI_LABEL_STUDIES = str(app_dir), str(studies)
    settings.MONAI_LABEL_SESSION_PATH = str(tmp_path_factory.mktemp("sessions"))
    settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD = False
    os.environ.setdefault("PYTHONPATH", "")
    from monailabel.app import app

    return app


@pytest.fixture(scope="module")
def server(stock):
    with serving(guarded(stock, limits=Limits(kept_seconds=0, upload=2**22))) as address:
        yield address


@pytest.fixture
def client(server, tmp_path):
    from monailabel.client import MONAILabelClient

    return MONAILabelClient(server, tmpdir=str(tmp_path), client_id="user-xyz")


def ask(server: str, method: str, address: str, **more):
    import requests

    return requests.request(method, server + address, timeout=30, **more)


def test_a_session_of_3d_slicer_passes_unchanged(client, tmp_path):
    info = client.info()
    assert list(info["models"]) == [MODEL]

    sample = client.next_sample("random", {})
    assert Path(sample["path"]).is_file()  # on this machine, Slicer opens it itself

    # as the plugin builds it: the first of each list of choices, and what it always adds
    config = info["models"][MODEL]["config"]
    params = {key: value[0] if isinstance(value, list) else value for key, value in config.items()}
    params |= {"result_extension": ".nrrd", "result_dtype": "uint8"}
    _, result = client.infer(MODEL, sample["id"], params)
    assert result["label_names"] == {"organ": 1}

    label = tmp_path / "label.nii.gz"
    label.write_bytes(label_bytes())
    saved = client.save_label(sample["id"], str(label), params={"label_info": [{"name": "organ", "idx": 1}]})
    assert saved["label"] == sample["id"]
    assert client.datastore()["objects"][sample["id"]]["labels"]["final"]["info"]["label_info"][0]["idx"] == 1
    assert read_label(client.download_label(sample["id"], "final")).array.sum() == 8


def test_an_image_is_uploaded_and_a_session_made_as_slicer_does_it(client, tmp_path, studies):
    image = tmp_path / "tmp.one.two.nii.gz"
    image.write_bytes(image_bytes(7))
    assert client.upload_image(str(image), "from_slicer")["image"] == "from_slicer"
    assert (studies / "from_slicer.nii.gz").read_bytes() == image.read_bytes()

    session = client.create_session(str(image))["session_id"]
    file, _ = client.infer(MODEL, "1: a node of Slicer", {}, session_id=session)
    assert read_label(file).array.shape == SHAPE
    assert client.get_session(session)["name"] == session
    client.remove_session(session)


def test_training_is_started_watched_and_stopped(client, server):
    assert client.train_start(MODEL, {"max_epochs": 2, "device": "cpu"})["status"] in ("SUBMITTED", "RUNNING")
    client.train_status()
    client.train_stop()
    # OHIF trains all models with a setting for each
    answer = ask(
        server, "POST", "/train/", json={MODEL: {"max_epochs": 3, "device": "cpu"}}, params={"run_sync": "true"}
    )
    assert answer.json()[MODEL]["result"] is not None


def test_ohif_and_the_reviewer_pass(server):
    form = {"params": json.dumps({"threshold": 0.5, "result_extension": ".nrrd", "result_dtype": "uint8"})}
    answer = ask(
        server, "POST", f"/infer/{MODEL}?image=case_0&output=image", files=[("params", (None, form["params"]))]
    )
    assert answer.status_code == 200 and answer.content[:2] == b"\x1f\x8b"
    assert "<title>" in ask(server, "GET", "/ohif/").text.lower()

    label = {"label": ("case_1.nii.gz", label_bytes())}
    assert ask(server, "PUT", "/datastore/label?image=case_1", files=label, data={"params": "{}"}).status_code == 200
    notes = {"params": json.dumps({"segmentationMeta": {"status": "approved", "comment": "a/b ok"}})}
    assert ask(server, "PUT", "/datastore/updatelabelinfo?label=case_1&tag=final", data=notes).status_code == 200
    assert ask(server, "GET", "/").status_code == 200  # how the reviewer sees that there is a server


def test_batch_inference_and_scoring_status_pass(server):
    answer = ask(server, "POST", f"/batch/infer/{MODEL}?images=unlabeled&run_sync=true", json={"multi_gpu": False})
    assert answer.status_code == 200
    assert ask(server, "GET", "/batch/infer").status_code == 404
    assert ask(server, "GET", "/scoring/").json()["detail"] == "No Scoring Tasks Found"


def test_twenty_inferences_at_once_equal_those_one_by_one(server):
    def infer(number: int) -> bytes:
        form = [("params", (None, json.dumps({"threshold": 0.05 * number})))]
        answer = ask(server, "POST", f"/infer/{MODEL}?image=case_{number % 3}&output=image", files=form)
        assert answer.status_code == 200
        return answer.content

    serial = [infer(number) for number in range(20)]
    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(infer, range(20))) == serial
    assert len(set(serial)) > 10


def test_the_server_answers_while_a_network_runs(server):
    def slow() -> int:
        form = [("params", (None, json.dumps({"threshold": 0.99})))]
        return ask(server, "POST", f"/infer/{MODEL}?image=case_0", files=form).status_code

    with ThreadPoolExecutor(3) as pool:
        running = [pool.submit(slow) for _ in range(3)]
        seen = []
        while not all(one.done() for one in running):
            seen.append(ask(server, "GET", "/queue").json())
        assert [one.result() for one in running] == [200, 200, 200]
    assert max(one["waiting"] for one in seen) >= 1
    assert max(one["running"] for one in seen) == 1


def test_a_failure_inside_says_neither_file_nor_patient_and_the_next_request_succeeds(server, studies):
    form = [("params", (None, json.dumps({"threshold": 0.13})))]
    answer = ask(server, "POST", f"/infer/{MODEL}?image=case_0", files=form)
    assert answer.status_code == 500 and answer.json()["code"] == "INTERNAL"
    assert str(studies) not in answer.text and "Doe" not in answer.text and "Traceback" not in answer.text
    assert ask(server, "POST", f"/infer/{MODEL}?image=case_0&output=image").status_code == 200


def test_an_archive_is_unpacked_without_its_names(server):
    content = zipped({"Doe^Jane/scan.nii.gz": image_bytes(3)})
    made = ask(server, "PUT", "/session/?uncompress=true", files=[("files", ("a.zip", content))])
    assert made.status_code == 200, made.text
    assert "Doe" not in made.text
    answer = ask(server, "POST", f"/infer/{MODEL}?session_id={made.json()['session_id']}&output=image")
    assert answer.status_code == 200


def test_nothing_stays_in_the_folder_of_temporary_files(server):
    for content in (b"", b"no scan", image_bytes()):
        ask(server, "POST", f"/infer/{MODEL}?output=image", files={"file": ("x.nii.gz", content)})
    folder = Path(tempfile.gettempdir())
    assert folder.name.startswith("semi_med_label_") and folder.stat().st_mode & 0o777 == 0o700
    deadline = time.monotonic() + 5
    while list(folder.iterdir()) and time.monotonic() < deadline:
        ask(server, "GET", "/healthz")
    assert list(folder.iterdir()) == []


def test_malformed_requests_end_in_a_sentence(server, studies):
    canary = studies.parent / "JaneDoe.nii.gz"
    canary.write_bytes(image_bytes())
    os.utime(canary, (0, time.time()))
    address = ("127.0.0.1", int(server.rsplit(":", 1)[1]))
    requests = Requests(1, model=MODEL, case="case_0", image=image_bytes(), canary=str(canary))
    faults = []
    for asked in itertools.islice(requests, 200):
        forbidden = tuple(word for word in (b"/tmp", b"JaneDoe", b"Traceback") if word.decode() not in asked.start[1])
        status, head, body = send(asked, address)
        if fault := judge(asked, status, head, body, forbidden=forbidden):
            faults.append((fault, asked.kind, asked.start, status, body[:200]))
    assert faults == []
    assert canary.stat().st_atime < 1  # never read


def test_clients_that_leave_cost_nothing(server):
    address = ("127.0.0.1", int(server.rsplit(":", 1)[1]))
    body = b'--b\r\nContent-Disposition: form-data; name="params"\r\n\r\n{"threshold": 0.99}\r\n--b--\r\n'
    head = f"POST /infer/{MODEL}?image=case_0 HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(body)}\r\n"
    head += "Content-Type: multipart/form-data; boundary=b\r\n\r\n"
    for _ in range(6):
        with socket.create_connection(address) as connection:
            connection.sendall(head.encode() + body)
            time.sleep(0.01)
    deadline = time.monotonic() + 10
    while (seen := ask(server, "GET", "/queue").json())["running"] and time.monotonic() < deadline:
        time.sleep(0.05)
    assert (seen["running"], seen["waiting"]) == (0, 0)
    assert ask(server, "POST", f"/infer/{MODEL}?image=case_0&output=image").status_code == 200


def test_the_login_of_slicer_and_qupath_takes_the_token_as_password(stock, tmp_path):
    from monailabel.client import MONAILabelClient
    from monailabel.client.client import MONAILabelClientException

    with serving(guarded(stock, token=TOKEN)) as address:
        client = MONAILabelClient(address, tmpdir=str(tmp_path))
        assert client.auth_enabled()
        with pytest.raises(MONAILabelClientException):
            client.info()
        with pytest.raises(MONAILabelClientException):
            client.auth_token("jane", "wrong password here")
        client.update_auth(client.auth_token("jane", TOKEN))
        assert client.auth_valid_token()
        assert list(client.info()["models"]) == [MODEL]
