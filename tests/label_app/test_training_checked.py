"""Plain MONAI Label, started with its own command, says at once that there is nothing to train on."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("monailabel")

from semi_med.label_app import main
from semi_med.label_app.serve import TrainingChecked


class Stock:
    """MONAI Label's application, which writes down what reaches it."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.asked.append((scope["type"], scope.get("path", "")))
        if scope["type"] == "http":
            await send({"type": "http.response.start", "status": 200, "headers": []})
            await send({"type": "http.response.body", "body": b"stock"})


@pytest.fixture
def stock() -> Stock:
    return Stock()


@pytest.fixture
def ask(stock, study, bundle_folder, supervised_folder, monkeypatch):
    """Asks for something of an app with two bundles and eight scans; gives status and content."""
    conf = {"bundles": f"{bundle_folder}:{supervised_folder}", "models": "", "device": "cpu"}
    app = main.SemiMedApp(str(Path(main.__file__).parent), str(study), conf)
    monkeypatch.setattr("monailabel.interfaces.utils.app.app_instance", lambda: app)

    def ask(method: str, path: str, *, kind: str = "http") -> tuple[int, bytes]:
        sent: list[dict[str, Any]] = []

        async def send(message: dict[str, Any]) -> None:
            sent.append(message)

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": b"{}"}

        scope = {"type": kind, "method": method, "path": path, "headers": []}
        asyncio.run(TrainingChecked(stock)(scope, receive, send))
        return (sent[0]["status"], b"".join(one.get("body", b"") for one in sent)) if sent else (0, b"")

    ask.app = app  # type: ignore[attr-defined]
    return ask


@pytest.mark.parametrize("path", ["/train/", "/train/cotrain_hippocampus", "/train/cotrain_hippocampus/"])
def test_without_a_label_a_training_is_answered_at_once(ask, stock, path):
    status, content = ask("POST", path)
    assert status == 409
    assert json.loads(content)["detail"].startswith("no scan has a label yet. Label one scan")
    assert stock.asked == []


def test_a_model_that_is_not_there_is_named(ask, stock):
    status, content = ask("POST", "/train/nobody")
    assert (status, json.loads(content)["detail"], stock.asked) == (404, "there is no model 'nobody'", [])


def test_with_a_label_the_training_begins(ask, stock, study):
    ask.app.datastore().save_label("scan_0", str(Path(f"{study}_labels") / "scan_0.nii.gz"), "final", {})
    assert ask("POST", "/train/cotrain_hippocampus") == (200, b"stock")
    assert stock.asked == [("http", "/train/cotrain_hippocampus")]


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/train/"), ("DELETE", "/train/"), ("POST", "/infer/x"), ("GET", "/")]
)
def test_everything_else_passes_through(ask, stock, method, path):
    assert ask(method, path) == (200, b"stock")
    assert stock.asked == [("http", path)]


def test_the_start_and_the_end_of_the_server_pass_through(ask, stock):
    ask("", "", kind="lifespan")
    assert stock.asked == [("lifespan", "")]


def test_plain_monai_label_is_given_the_checked_application(monkeypatch):
    import importlib

    monkeypatch.delenv("SEMI_MED_LABEL_TOKEN", raising=False)
    asgi = importlib.import_module("semi_med.label_app.asgi")
    assert isinstance(asgi.app.app, TrainingChecked)
    assert asgi.app.app.app is asgi.stock
