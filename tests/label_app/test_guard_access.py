"""Who may ask the guarded server; rows S11 and S18 of the faults that it is built against."""

from __future__ import annotations

import base64

import pytest
from guard_samples import TOKEN, write_studies
from stub_server import FAR, Asker

from semi_med.errors import InputError
from semi_med.label_app.guard import check_start, guarded, new_token

BEARER = {"authorization": f"Bearer {TOKEN}"}


@pytest.fixture
def store(tmp_path):
    write_studies(tmp_path / "store", 1)
    return tmp_path / "store"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.0.3", "example.org", ""])
def test_without_a_token_nothing_beyond_this_machine_is_listened_on(host):
    with pytest.raises(InputError, match="without a token") as caught:
        check_start(host)
    assert caught.value.code == "TOKEN" and "Set a token" in str(caught.value)
    check_start(host, token=TOKEN)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.3.2.1"])
def test_this_machine_needs_no_token(host):
    check_start(host)


@pytest.mark.parametrize("token", ["", "short", "with a space in the middle", "ünicode-of-some-length"])
def test_a_token_that_can_be_guessed_is_refused(token):
    with pytest.raises(InputError, match="at least 16"):
        check_start("127.0.0.1", token=token)
    with pytest.raises(InputError, match="at least 16"):
        guarded(None, token=token)


def test_a_new_token_is_taken():
    check_start("0.0.0.0", token=new_token())
    assert new_token() != new_token()


@pytest.mark.parametrize("origin", ["*", "null", "example.org", "https://*.example.org", "https://a/b"])
def test_what_is_no_origin_is_refused(origin):
    with pytest.raises(InputError, match="an origin is written"):
        check_start("127.0.0.1", origins=[origin])


def test_unpickling_by_monai_must_be_off(monkeypatch):
    monkeypatch.setenv("MONAI_ALLOW_PICKLE", "1")
    with pytest.raises(InputError, match="Unset it"):
        check_start("127.0.0.1")


def test_links_that_lead_out_and_names_that_cannot_be_asked_for_stop_the_start(store, tmp_path):
    check_start("127.0.0.1", studies=store)
    (store / "two words.nii.gz").write_bytes(b"")
    with pytest.raises(InputError, match="1 of 2 images cannot be asked for"):
        check_start("127.0.0.1", studies=store)
    (store / "two words.nii.gz").unlink()

    (tmp_path / "away.nii.gz").write_bytes(b"")
    (store / "linked.nii.gz").symlink_to(tmp_path / "away.nii.gz")
    with pytest.raises(InputError, match=r"1 links lead out of the folder: 'linked.nii.gz'"):
        check_start("127.0.0.1", studies=store)
    check_start("127.0.0.1", studies=store, outside=[tmp_path])


# ---- requests ------------------------------------------------------------------------------------------------------


def test_a_client_of_another_machine_needs_the_token(store):
    assert Asker(store)("GET", "/info/", client=FAR).status == 403
    ask = Asker(store, token=TOKEN)
    assert ask("GET", "/info/", client=FAR).status == 401
    assert ask("GET", "/info/", client=FAR, headers=BEARER).status == 200


@pytest.mark.parametrize(
    "given", ["", "Bearer", "Bearer wrong", f"bearer{TOKEN}", f"Token {TOKEN}", "Basic !!", f"Bearer {TOKEN}x"]
)
def test_every_address_asks_for_the_token(store, given):
    ask = Asker(store, token=TOKEN)
    for method, address in [
        ("GET", "/info/"),
        ("POST", "/train/net"),
        ("GET", "/"),
        ("GET", "/queue"),
        ("GET", "/ohif/"),
    ]:
        answer = ask(method, address, headers={"authorization": given})
        assert answer.status == 401 and "Basic" in answer.headers["www-authenticate"]
    assert ask.stub.asked == []


def test_a_browser_gives_the_token_as_a_password(store):
    pair = base64.b64encode(f"jane:{TOKEN}".encode()).decode()
    assert Asker(store, token=TOKEN)("GET", "/info/", headers={"authorization": f"Basic {pair}"}).status == 200


def test_health_is_asked_without_a_token(store):
    assert Asker(store, token=TOKEN)("GET", "/healthz").body == b'{"status": "ok"}'


@pytest.mark.parametrize(
    "host", ["evil.example.org", "127.0.0.1.evil.org", "192.0.2.9:8000", "", "a b", "127.0.0.1:8000, x"]
)
def test_a_name_that_was_bent_to_this_machine_is_not_answered(store, host):
    answer = Asker(store)("GET", "/info/", host=host)
    assert (answer.status, answer.code) == (400, "HOST")


def test_with_a_token_addresses_and_listed_names_are_answered(store):
    ask = Asker(store, token=TOKEN, hosts=["GPU.example.org"])
    assert ask("GET", "/info/", host="192.0.2.9:8000", headers=BEARER).status == 200
    assert ask("GET", "/info/", host="gpu.example.org", headers=BEARER).status == 200
    assert ask("GET", "/info/", host="evil.example.org", headers=BEARER).status == 400


def test_a_proxy_in_front_needs_a_token(store):
    for name in ("X-Forwarded-For", "forwarded", "via"):
        assert Asker(store)("GET", "/info/", headers={name: "192.0.2.1"}).status == 403


@pytest.mark.parametrize(
    "headers",
    [
        {"origin": "https://evil.example.org"},
        {"origin": "null"},
        {"origin": "http://127.0.0.1:9999"},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site", "sec-fetch-mode": "no-cors"},
    ],
)
def test_a_page_of_another_site_can_start_nothing(store, headers):
    ask = Asker(store, token=TOKEN)
    for extra in ({}, BEARER):
        answer = ask("POST", "/train/net", headers={**headers, **extra})
        assert (answer.status, answer.code) == (403, "ORIGIN")
        assert not any(name.startswith("access-control") for name in answer.headers)
    assert ask.stub.asked == []


def test_the_own_page_and_a_followed_link_pass(store):
    ask = Asker(store)
    assert ask("GET", "/info/", headers={"origin": "http://127.0.0.1:8000"}).status == 200
    assert ask("GET", "/ohif/", headers={"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate"}).status == 200


def test_only_a_listed_site_reads_answers_and_never_with_credentials(store):
    ask = Asker(store, origins=["https://viewer.example.org"])
    ask.stub.answer = (
        200,
        [(b"access-control-allow-origin", b"*"), (b"Access-Control-Allow-Credentials", b"true")],
        b"{}",
    )
    listed = ask("GET", "/datastore/", headers={"origin": "https://viewer.example.org"})
    assert listed.headers["access-control-allow-origin"] == "https://viewer.example.org"
    assert "access-control-allow-credentials" not in {name.lower() for name in listed.headers}
    plain = ask("GET", "/datastore/")
    assert not any(name.lower().startswith("access-control") for name in plain.headers)


def test_a_preflight_is_answered_for_a_listed_site_only(store):
    ask = Asker(store, token=TOKEN, origins=["https://viewer.example.org"])
    wanted = {"access-control-request-method": "PUT"}
    answer = ask("OPTIONS", "/datastore/label", headers={"origin": "https://viewer.example.org", **wanted})
    assert answer.status == 204 and "authorization" in answer.headers["access-control-allow-headers"]
    assert ask("OPTIONS", "/datastore/label", headers={"origin": "https://evil.org", **wanted}).status == 403
    assert ask("OPTIONS", "/datastore/label").status == 405


def test_a_header_that_decides_is_there_once(store):
    answer = Asker(store)("GET", "/info/", raw_headers=[(b"Host", b"evil.example.org")])
    assert (answer.status, answer.code) == (400, "HEADER")


def test_the_login_gives_the_token_for_the_token_only(store):
    ask = Asker(store, token=TOKEN)
    form = {"content-type": "application/x-www-form-urlencoded"}
    right = f"username=jane&password={TOKEN}&grant_type=password".encode()
    assert b'"access_token": "' + TOKEN.encode() in ask("POST", "/auth/token", right, headers=form).body
    assert ask("POST", "/auth/token", b"username=jane&password=wrong", headers=form).status == 401
    assert ask("POST", "/auth/token", b"x" * 5000, headers=form).status == 413
    assert ask("GET", "/auth/").body.startswith(b'{"enabled": true')
    assert Asker(store)("GET", "/auth/").body.startswith(b'{"enabled": false')
