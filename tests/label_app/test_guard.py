"""What may be asked of the guarded server, with what, and what comes back; rows S12 to S17."""

from __future__ import annotations

import asyncio
import json
import tempfile
import threading
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from guard_samples import TOKEN, image_bytes, label_bytes, write_studies, zipped
from stub_server import FAR, Asker

from semi_med.errors import InputError
from semi_med.inference.io import write_label
from semi_med.label_app.guard import Limits
from semi_med.label_app.guard.answers import Refused, refusal_of, refusal_of_answer, without_paths
from semi_med.label_app.guard.endpoints import CLOSED, ENDPOINTS
from semi_med.label_app.guard.lanes import Gone, Lane
from semi_med.label_app.guard.store import is_id

HOSTILE = [
    *(
        "../x",
        "..",
        ".",
        "a/../b",
        "a..b",
        "/etc/passwd",
        "\\x",
        "C:\\x",
        "a\0b",
        "a" * 129,
        "a" * 4000,
        "CON",
        "nul.txt",
    ),
    *(
        "-x",
        ".hidden",
        "_x",
        "a b",
        "a\n",
        "ü",
        "%2e%2e%2f",
        "$(id)",
        "a;b",
        "a|b",
        "~root",
        "*",
        "{a}",
        "x.",
        "com1.nii",
    ),
]


@pytest.fixture
def store(tmp_path):
    write_studies(tmp_path / "store", 2)
    return tmp_path / "store"


@pytest.fixture
def ask(store):
    return Asker(store)


@pytest.fixture
def forms():
    pytest.importorskip("starlette")
    pytest.importorskip("python_multipart")


# ---- ids -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", HOSTILE, ids=ascii)
def test_an_id_is_never_a_path(text):
    assert not is_id(text)


@pytest.mark.parametrize("text", ["a", "case_0", "1.2.840.113619.2.55", "A-b.c_d", "0" * 128])
def test_the_usual_ids_pass(text):
    assert is_id(text)


def test_no_endpoint_takes_a_hostile_id(ask):
    for endpoint in ENDPOINTS:
        names = [name for name in ("image", "label", "id", "tag", "session_id") if name in endpoint.query]
        for text in HOSTILE:
            address = endpoint.template
            for part in ("model", "strategy", "method", "session_id"):
                address = address.replace(f"{{{part}}}", text.replace("?", "_"))
            if address != endpoint.template and text not in (".", ".."):
                assert ask(endpoint.method, address).status in (400, 404, 405), (endpoint, text)
            for name in names:
                address = endpoint.template.replace("{model}", "net")
                assert ask(endpoint.method, f"{address}?{name}={quote(text)}").status == 400, (endpoint, name, text)
    assert ask.stub.asked == []


def test_what_lies_outside_is_not_found_even_through_a_link(ask, store, tmp_path):
    secret = tmp_path / "secret.nii.gz"
    secret.write_bytes(image_bytes())
    (store / "linked.nii.gz").symlink_to(secret)
    assert ask("GET", "/datastore/image?image=linked").status == 404
    (store / "labels").mkdir()
    (store / "labels" / "final").symlink_to(tmp_path)
    assert ask("GET", "/datastore/label?label=case_0&tag=final").status == 404
    assert ask("PUT", "/datastore/label?image=case_0&tag=final").status == 404
    assert ask.stub.asked == []


# ---- addresses -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("closed", [*CLOSED, "/proxy/dicom/wado/x", "/logs/gpu", "/static/../x"])
def test_closed_addresses_say_why(ask, closed):
    answer = ask("GET", closed)
    assert (answer.status, answer.code) == (403, "CLOSED") and len(answer.detail) > 20
    assert ask.stub.asked == []


def test_weights_do_not_come_from_clients(ask):
    assert ask("PUT", "/model/net").status == 403
    assert ask("DELETE", "/model/net").status == 403
    assert ask("GET", "/model/net").status == 200


def test_the_dicomweb_server_is_read_through_this_one_only_if_asked_for(store):
    ask = Asker(store, proxy=True)
    assert ask("GET", "/proxy/dicom/wado/studies/1.2.3/series").status == 200
    for path in (
        "/proxy/dicom/wado/studies/../x",
        "/proxy/dicom/stow/studies",
        "/proxy/dicom/x",
        "/proxy/dicom/wado/a//b",
    ):
        assert ask("GET", path).status == 403
    assert ask("POST", "/proxy/dicom/wado/studies").status == 403


def test_an_unknown_address_and_a_wrong_method_are_told_apart(ask):
    assert ask("GET", "/wp-admin").status == 404
    assert ask("GET", "//info/").status == 404
    wrong = ask("PATCH", "/info/")
    assert wrong.status == 405 and wrong.headers["allow"] == "GET"


def test_what_is_passed_on_is_written_anew(ask):
    ask("GET", "/train?check_if_running=1", headers={"x-secret": "1", "origin": "http://127.0.0.1:8000"})
    assert ask.stub.asked == [("GET", "/train/", "check_if_running=true", b"")]
    assert set(ask.stub.headers) == {b"host"}


@pytest.mark.parametrize(
    "query",
    [
        "image=case_0&image=case_1",
        "images=x",
        "run_sync=maybe",
        "image",
        "%ff=%ff",
        "&&",
        "output=dicom",
        "limit_cases=1",
    ],
)
def test_a_query_is_read_strictly(ask, query):
    assert ask("POST", f"/infer/net?{query}").status in (400, 422)
    assert ask.stub.asked == []


# ---- settings ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "given",
    [
        {"image": "/etc/passwd"},
        {"bundle_path": "/tmp"},
        {"timeout": 1e9},
        {"logging": "DEBUG"},
        {"gpus": "0"},
        {"roi_size": [1e9] * 3},
        {"run": "$__import__('os').system('id')"},
        {"run": "@network"},
        {"run": "../x"},
        {"run": ["a"]},
        {"device": "/dev/mem"},
        {"device": "cuda:7"},
        {"max_epochs": 1e9},
        {"max_epochs": -1},
        {"max_epochs": "5"},
        {"max_epochs": True},
        {"max_epochs": {"_target_": "os.system"}},
        {"client_id": "/etc"},
        {"client_id": {"a": 1}},
    ],
    ids=json.dumps,
)
def test_settings_that_are_not_offered_or_out_of_range_are_refused(ask, given):
    answer = ask.json("POST", "/train/net", given)
    assert (answer.status, answer.code) == (422, "PARAMS")
    assert ask.stub.asked == []


@pytest.mark.parametrize(
    "text",
    [
        *(b"{", b"\xff", b"[]", b'"x"', b'{"max_epochs": NaN}', b'{"run":"","run":""}', b'{"max_epochs": 1e999}'),
        b'{"a":' * 1000 + b"1" + b"}" * 1000,
        b'{"max_epochs": 1' + b"0" * 6000 + b"}",
    ],
    ids=lambda text: ascii(text[:24]),
)
def test_what_is_no_plain_json_is_refused(ask, text):
    assert ask("POST", "/train/net", text, headers={"content-type": "application/json"}).status in (400, 422)
    assert ask.stub.asked == []


def test_offered_settings_pass_and_are_written_anew(ask):
    given = {"max_epochs": 3, "device": "cpu", "run": "training", "client_id": "Müller's PC"}
    assert ask.json("POST", "/train/net", given).status == 200
    assert json.loads(ask.stub.asked[0][3]) == given
    assert ask.json("POST", "/train/", {"net": given}).status == 200
    assert ask.json("POST", "/train/", {"net": {"image": "x"}}).status == 422
    assert ask.json("POST", "/activelearning/random", {"client_id": None}).status == 200
    assert ask("POST", "/activelearning/random", b"{}").status == 200  # QuPath says no type


def test_json_is_no_plain_text_which_any_page_could_send(ask):
    assert ask("POST", "/train/net", b"{}", headers={"content-type": "text/plain"}).status == 415


def test_unknown_models_strategies_and_methods_are_not_found(ask):
    for address in ("/train/other", "/infer/other?image=case_0", "/activelearning/other", "/scoring/other"):
        answer = ask("POST", address)
        assert answer.status == 404 and "there is" in answer.detail
    assert "net" in ask("POST", "/train/other").detail


@pytest.mark.parametrize(
    "given",
    [
        {"threshold": 0.2, "device": "cuda", "largest": False},
        {"foreground": [[1, 2, 3]], "background": [], "label": "organ", "left part": [[1, 2, 3]]},
        {"result_extension": ".nrrd", "result_dtype": "uint8", "result_compress": False, "restore_label_idx": False},
        {"label_info": [{"name": "organ", "idx": 1, "color": [255, 0, 0]}], "save_label": True, "label_tag": "draft"},
        {"device": ["cpu", "cuda"], "client_id": None},
    ],
    ids=json.dumps,
)
def test_settings_of_known_clients_pass(ask, forms, given):
    answer = ask.form("POST", "/infer/net?image=case_0", [("params", None, json.dumps(given).encode())])
    assert answer.status == 200
    assert json.dumps(given).encode() in ask.stub.asked[0][3]


@pytest.mark.parametrize(
    "given",
    [
        {"image": "/etc/passwd"},
        {"label": "/etc/passwd"},
        {"label_tag": "final"},
        {"label_tag": "../x"},
        {"result_extension": "/../x"},
        {"result_extension": ".exe"},
        {"foreground": [[1e9, 1, 1]]},
        {"foreground": "x"},
        {"threshold": "0.5"},
        {"session": {"image": "/etc/passwd"}},
    ],
    ids=json.dumps,
)
def test_an_inference_reads_and_writes_nothing_that_a_setting_names(ask, forms, given):
    answer = ask.form("POST", "/infer/net?image=case_0", [("params", None, json.dumps(given).encode())])
    assert answer.status == 422
    assert ask.stub.asked == []


@pytest.mark.parametrize("notes", [{"name": "../x"}, {"path": "/x"}, {"a/b": 1}, {"a": "x" * 5000}, {"a": "\0"}])
def test_notes_about_a_case_are_notes(ask, forms, notes):
    assert (
        ask.form("PUT", "/datastore/image/info?image=case_0", [("info", None, json.dumps(notes).encode())]).status
        == 422
    )
    fine = {"comment": "<b>see a/b</b>", "level": {"easy": True}}
    assert (
        ask.form("PUT", "/datastore/image/info?image=case_0", [("info", None, json.dumps(fine).encode())]).status == 200
    )


def test_what_is_segmented_must_be_there(ask):
    assert ask("POST", "/infer/net").status == 422
    assert ask("POST", "/infer/net?image=case_9").status == 404
    ask.stub.answer = (404, [], b"{}")
    assert ask("POST", "/infer/net?session_id=abc").status == 404


# ---- bodies --------------------------------------------------------------------------------------------------------


def test_a_body_that_is_announced_too_long_is_not_read(ask):
    answer = ask("POST", "/train/net", b"{}", headers={"content-type": "application/json", "content-length": "20000"})
    assert answer.status == 413


@pytest.mark.parametrize("length", ["-1", "1e3", "", "٣", "9" * 30])
def test_a_length_that_is_none_is_refused(ask, length):
    raw = [(b"content-length", length.encode())]
    assert ask("POST", "/train/net", b"{}", raw_headers=raw).status == 413


def test_a_body_without_a_length_is_counted(ask, forms):
    assert ask("POST", "/train/net", [b" " * 10_000] * 2).status == 413
    start = b'--limit\r\nContent-Disposition: form-data; name="file"; filename="a.nii.gz"\r\n\r\n'
    pieces = [start, *[b"x" * 2**16] * 17]
    kind = {"content-type": "multipart/form-data; boundary=limit"}
    assert ask("PUT", "/datastore/image?image=new", pieces, headers=kind).status == 413
    assert ask.stub.asked == []


def test_a_body_that_does_not_arrive_is_given_up(store):
    ask = Asker(store, limits=Limits(chunk_seconds=0.05))
    answer = ask("POST", "/train/net", [])
    assert (answer.status, answer.code) == (408, "TIMEOUT")


def test_an_upload_stops_before_the_disk_is_full(store, forms):
    ask = Asker(store, limits=Limits(free_disk=2**62))
    assert ask.form("PUT", "/datastore/image?image=new", [("file", "a.nii.gz", image_bytes())]).status == 507


# ---- files ---------------------------------------------------------------------------------------------------------


def test_a_sound_scan_is_passed_on_under_a_name_of_the_server(ask, forms):
    answer = ask.form("PUT", "/datastore/image", [("file", "C:\\Users\\jane\\case_7.nii.gz", image_bytes())])
    assert answer.status == 200
    method, path, query, body = ask.stub.asked[0]
    assert (method, path, query) == ("PUT", "/datastore/image", "image=case_7")
    assert image_bytes() in body and b"jane" not in body and b'filename="upload000001.nii.gz"' in body


@pytest.mark.parametrize(
    ("name", "content", "status"),
    [
        ("a.nii.gz", b"", 422),
        ("a.nii.gz", b"no scan", 422),
        ("a.nii.gz", image_bytes()[:200], 422),
        ("a.nii", image_bytes(), 422),
        ("a.png", b"\x89PNG\r\n\x1a\n", 422),
        ("a.nrrd", b"NRRD0004\n", 422),
        ("a.exe", b"MZ", 415),
        ("a.svs", b"x", 415),
        ("a.json", b"{}", 415),
        ("noending", image_bytes(), 415),
        ("../../etc/cron.d/x", b"x", 415),
    ],
)
def test_what_is_no_scan_is_refused(ask, forms, name, content, status):
    answer = ask.form("PUT", "/datastore/image?image=new", [("file", name, content)])
    assert answer.status == status and "/tmp" not in answer.detail
    assert ask.stub.asked == []


def test_a_label_fits_its_image(ask, forms):
    assert ask.form("PUT", "/datastore/label?image=case_0", [("label", "x.nii.gz", label_bytes())]).status == 200
    other = ask.form("PUT", "/datastore/label?image=case_0", [("label", "x.nii.gz", label_bytes((6, 5, 3)))])
    assert other.code == "GEOMETRY" and other.detail.startswith(
        "the label has 6 x 5 x 3 voxels, its image has 6 x 5 x 4"
    )
    fraction = ask.form("PUT", "/datastore/label?image=case_0", [("label", "x.nii.gz", image_bytes())])
    assert (fraction.status, fraction.code) == (422, "LABEL_VALUES")


@pytest.mark.parametrize(
    ("image", "label", "status"),
    [
        ((6, 5), (6, 5), 200),
        ((6, 5, 1, 3), (6, 5, 1, 3), 200),
        ((6, 5, 1, 3), (6, 5, 1), 200),
        ((6, 5), (6, 5, 2), 422),
    ],
)
def test_a_label_of_something_flat_fits_too(ask, forms, store, image, label, status):
    (store / "flat.nii.gz").write_bytes(image_bytes(shape=image))
    answer = ask.form("PUT", "/datastore/label?image=flat", [("label", "x.nii.gz", label_bytes(label))])
    assert answer.status == status


POLYGON = """<?xml version='1.0' encoding='UTF-8' standalone='no'?>
<ASAP_Annotations><Annotations Name="" Description="" X="0" Y="0" W="0" H="0">
<Annotation Color="#ff0000" Name="organ" PartOfGroup="organ" Type="Polygon"><Coordinates>
<Coordinate Order="0" X="1" Y="1"/><Coordinate Order="1" X="4" Y="1"/><Coordinate Order="2" X="4" Y="3"/>
</Coordinates></Annotation></Annotations></ASAP_Annotations>"""


@pytest.fixture
def submit(ask, forms, store):
    """Annotations of QuPath for a picture."""
    write_label(store / "picture.png", np.zeros((6, 5, 1), np.uint8), affine=np.eye(4))

    def send(text: str | bytes, image: str = "picture"):
        content = text if isinstance(text, bytes) else text.encode()
        return ask.form("PUT", f"/datastore/label?image={image}", [("label", "x.xml", content)])

    return send


def test_annotations_of_qupath_pass_for_a_picture_alone(submit):
    assert submit(POLYGON).status == 200
    answer = submit(POLYGON, "case_0")
    assert (answer.status, answer.detail) == (422, "annotations are taken on pictures. Submit a label file instead.")


@pytest.mark.parametrize(
    "bad",
    [
        "<!DOCTYPE x [<!ENTITY a SYSTEM 'file:///etc/passwd'>]>" + POLYGON[55:],
        POLYGON.replace("UTF-8", "cp037").encode()[:56] + "<!DOCTYPE x>".encode("cp037"),
        POLYGON.encode("utf-16"),
        POLYGON[:-9],
        "<kml/>",
        POLYGON.replace("Polygon", "Ellipse"),
        "<ASAP_Annotations/>",
    ],
)
def test_annotations_that_hide_something_or_say_nothing_are_refused(submit, bad):
    assert submit(bad).status == 422


@pytest.mark.parametrize(
    "parts",
    [
        [("file", "a.nii.gz", image_bytes()), ("file", "b.nii.gz", image_bytes())],
        [("other", "a.nii.gz", image_bytes())],
        [("params", None, b"{}"), ("params", None, b"{}"), ("file", "a.nii.gz", image_bytes())],
        [("surplus", None, b"x"), ("file", "a.nii.gz", image_bytes())],
    ],
)
def test_a_form_has_what_is_wanted_and_no_more(ask, forms, parts):
    assert ask.form("PUT", "/datastore/image?image=new", parts).status == 422
    assert ask.stub.asked == []


@pytest.mark.parametrize(
    "body", [b"", b"x", b"--limit\r\n", b"--limit\r\nContent-Disposition: form-data\r\n\r\n", b"--limit--"]
)
def test_a_broken_form_is_refused(ask, forms, body):
    for kind in (
        "multipart/form-data; boundary=limit",
        "multipart/form-data",
        'multipart/form-data; boundary="',
        "image/png",
    ):
        answer = ask("PUT", "/session/", body, headers={"content-type": kind})
        assert 400 <= answer.status < 500
    assert ask.stub.asked == []


@pytest.mark.parametrize(
    "members",
    [
        {"../x.nii.gz": image_bytes()},
        {"/x.nii.gz": image_bytes()},
        {"a.txt": b"x"},
        {"a.nii.gz": b"x"},
        {"bomb.nii": b"\0" * 2**21},
        {"a.zip": zipped({"a.nii.gz": image_bytes()})},
    ],
    ids=lambda members: next(iter(members)),
)
def test_a_hostile_archive_is_refused(ask, forms, members):
    answer = ask.form("PUT", "/session/?uncompress=true", [("files", "a.zip", zipped(members))])
    assert answer.status in (413, 422)
    assert ask.stub.asked == []


def test_an_archive_whose_list_would_fill_the_memory_is_refused_before_it_is_read(ask, forms, monkeypatch):
    import zipfile

    content = zipped({f"{number}.dcm": b"" for number in range(50)})
    monkeypatch.setattr("semi_med.inference.dicom_files.MAX_DIRECTORY", 1000)
    monkeypatch.setattr(zipfile, "ZipFile", lambda *_: pytest.fail("the list is read"))
    answer = ask.form("PUT", "/session/?uncompress=true", [("files", "a.zip", content)])
    assert (answer.status, answer.code) == (422, "ARCHIVE")


def test_an_archive_of_one_scan_is_passed_on_unpacked(ask, forms):
    content = zipped({"Doe^Jane.nii.gz": image_bytes()})
    assert ask.form("PUT", "/session/?uncompress=true", [("files", "Doe.zip", content)]).status == 200
    _, _, query, body = ask.stub.asked[0]
    assert query == "" and image_bytes() in body and b"Doe" not in body


def test_nothing_is_left_of_an_upload(ask, forms):
    for content in (image_bytes(), b"x"):
        ask.form("PUT", "/datastore/image?image=new", [("file", "a.nii.gz", content)])
    assert list(Path(tempfile.gettempdir()).iterdir()) == []
    ask.guard.close()


# ---- what comes back -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("cannot read /home/jane/Doe.nii"), 500),
        (InputError("the scan is cut off", where="/home/jane/Doe.nii", fix="Copy /home/jane again."), 422),
        (MemoryError("/home/jane"), 503),
        (TimeoutError(), 504),
        (OSError(24, "too many open files", "/home/jane"), 503),
        (OSError(28, "no space left", "/home/jane"), 507),
        (RuntimeError("dictionary changed size during iteration"), 503),
        (type("ImageNotFoundException", (Exception,), {})("Image Doe not found"), 404),
    ],
)
def test_a_failure_inside_names_no_file_and_no_patient(ask, error, status):
    ask.stub.error = error
    answer = ask("GET", "/datastore/")
    assert answer.status == status
    assert "jane" not in answer.detail and "Doe" not in answer.detail and "Error" not in answer.detail


def test_the_cause_of_a_failure_is_told_if_it_is_the_inputs(ask):
    inner = InputError("the scan is cut off", where="/home/jane/Doe.nii", fix="Copy it again.")
    outer = RuntimeError("applying transform LoadImaged to /home/jane/Doe.nii")
    outer.__cause__ = inner
    ask.stub.error = outer
    assert ask("GET", "/datastore/").detail == "the scan is cut off. Copy it again."


def test_error_answers_of_the_stock_server_lose_their_paths():
    assert refusal_of_answer(404, b'{"detail": "Image NOT Found"}').problem == "Image NOT Found"
    log = refusal_of_answer(404, b'{"detail": "Log File /srv/app/logs/app.log NOT Found"}')
    assert log.problem == "Log File <path> NOT Found"
    fastapi = refusal_of_answer(
        422, b'{"detail": [{"loc": ["query", "tag"], "msg": "Field required", "input": "Doe"}]}'
    )
    assert fastapi.problem == "query.tag: Field required"
    for body in (b"<html>", b"Internal Server Error", b'{"detail": {"a": 1}}', b"[]"):
        assert refusal_of_answer(500, body).problem == "the server failed on this request"
    assert refusal_of(refusal_of_answer(429, b"{}")).code == "BUSY"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("see /home/jane/x.nii.gz, then", "see <path>, then"),
        ("'C:\\Users\\jane\\x' failed", "'<path>' failed"),
        ("file:///srv/x", "<path>"),
        ("3 mm/s and n/a", "3 mm/s and n/a"),
        ("size (3 x 4)", "size (3 x 4)"),
    ],
)
def test_paths_are_found_in_texts(text, found):
    assert without_paths(text) == found


def test_a_client_far_away_is_told_no_paths_even_by_a_success(store):
    content = json.dumps({"id": "a", "path": "/srv/store/a.nii.gz", "log": ["reads /srv/x now"]}).encode()
    for client, told in ((FAR, False), (("127.0.0.1", 1), True)):
        ask = Asker(store, token=TOKEN)
        ask.stub.answer = (200, [(b"content-type", b"application/json"), (b"content-length", b"9")], content)
        answer = ask("GET", "/datastore/?output=all", client=client, headers={"authorization": f"Bearer {TOKEN}"})
        assert (b"/srv" in answer.body) == told
        assert json.loads(answer.body)["id"] == "a"
    assert Refused(400, "x").content() == b'{"detail": "x", "code": "REQUEST"}'


def test_answers_are_not_kept_and_not_guessed(ask):
    headers = ask("GET", "/info/").headers
    assert headers["x-content-type-options"] == "nosniff" and headers["cache-control"] == "no-store"


# ---- lanes ---------------------------------------------------------------------------------------------------------


def test_one_too_many_is_told_when_to_come_again():
    lane, gate = Lane("test", workers=1, waiting=1), threading.Event()

    async def main() -> None:
        running = [asyncio.ensure_future(lane.run(gate.wait)) for _ in range(2)]
        await asyncio.sleep(0.05)
        assert (lane.running, lane.waiting) == (1, 1)
        with pytest.raises(Refused) as caught:
            await lane.run(gate.wait)
        assert caught.value.status == 503 and int(dict(caught.value.headers)["retry-after"]) >= 1
        gate.set()
        await asyncio.gather(*running)
        assert (lane.running, lane.waiting) == (0, 0)

    asyncio.run(main())
    lane.close()


def test_who_leaves_while_waiting_gives_up_the_place():
    lane, gate = Lane("test", workers=1, waiting=5), threading.Event()

    async def leave() -> None:
        await asyncio.sleep(0.02)

    async def main() -> None:
        running = asyncio.ensure_future(lane.run(gate.wait))
        await asyncio.sleep(0.01)
        with pytest.raises(Gone):
            await lane.run(lambda: pytest.fail("nobody waits for this"), gone=leave)
        gate.set()
        await running
        assert await lane.run(lambda: 7, gone=leave) == 7

    asyncio.run(main())
    lane.close()


def test_requests_run_one_after_another():
    lane, order = Lane("test", workers=1, waiting=50), []

    def work(number: int) -> None:
        order.append(number)
        time.sleep(0.001)
        assert lane.running == 1

    async def main() -> None:
        await asyncio.gather(*(lane.run(lambda number=number: work(number)) for number in range(20)))

    asyncio.run(main())
    assert order == list(range(20))
    lane.close()
