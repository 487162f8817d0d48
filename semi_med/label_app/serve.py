"""Serving the app behind the guard: `semi-med label`. Nothing is downloaded, nothing is sent anywhere."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from semi_med.errors import InputError, ResourceError
from semi_med.label_app.guard import SERVER, check_start, guarded
from semi_med.label_app.guard.store import IMAGE_SUFFIXES
from semi_med.label_app.models import check_settings, is_remote, models_of, work_folder

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Request:
    """What is to be served.

    Attributes:
        studies: folder of the scans, or the address of a DICOMweb server.
        bundles: folders of bundles; none for cotrain_la.
        work: folder of the models; by default `semi_med` in the study.
        host: address to listen on.
        port: to listen on.
        token: that clients must send; None where only this machine can reach the server.
        origins: web pages of other servers that may use it, such as https://viewer.example.org.
        hosts: names beside the machine's own that clients call it by.
        iterations: of a round; by default the bundle's, at most 1000.
        device: to predict and train on; None takes CUDA if there is one.
        outside: folders beside `studies` that links in it may lead to.
        settings: of the bundles, for every training.
        subject_pattern: finds the subject in a scan's name.
        held_out: share of the labelled subjects that are validated with.
    """

    studies: str
    bundles: Sequence[Path] = ()
    work: Path | None = None
    host: str = "127.0.0.1"
    port: int = 8000
    token: str | None = field(default=None, repr=False)
    origins: Sequence[str] = ()
    hosts: Sequence[str] = ()
    outside: Sequence[Path] = ()
    iterations: int | None = None
    device: str | None = None
    settings: Mapping[str, str] = field(default_factory=dict)
    subject_pattern: str | None = None
    held_out: float | None = None


def environment(request: Request) -> dict[str, str]:
    """The environment variables by which MONAI Label, and every process that it starts, knows what to serve.

    Raises:
        InputError: the study or a bundle is not there.
    """
    studies = request.studies
    work = work_folder(studies, request.work)
    if not is_remote(studies):
        if not Path(studies).is_dir():
            raise InputError(
                "the folder of the study does not exist",
                where=studies,
                fix="Make it; it may be empty.",
                code="NOT_FOUND",
            )
        studies = str(Path(studies).resolve())
    models = models_of(request.bundles, studies, work=request.work)
    check_settings(request.settings, [model.bundle for model in models.values()])
    conf = {
        "bundles": os.pathsep.join(str(Path(folder).absolute()) for folder in request.bundles),
        "work": "" if request.work is None else str(work),
        "iterations": "" if request.iterations is None else str(request.iterations),
        "device": request.device or "",
        "settings": json.dumps(dict(request.settings)) if request.settings else "",
        "subject_pattern": request.subject_pattern or "",
        "held_out": "" if request.held_out is None else str(request.held_out),
    }
    path = os.pathsep.join(filter(None, [str(HERE.parents[1]), os.environ.get("PYTHONPATH", "")]))
    return {
        "MONAI_LABEL_APP_DIR": str(HERE),
        "MONAI_LABEL_STUDIES": studies,
        "MONAI_LABEL_APP_CONF": json.dumps({key: value for key, value in conf.items() if value}),
        "MONAI_LABEL_SERVER_PORT": str(request.port),
        "MONAI_LABEL_DATASTORE_FILE_EXT": json.dumps([f"*{suffix}" for suffix in IMAGE_SUFFIXES]),
        "MONAI_LABEL_SESSION_PATH": str(work / "sessions"),
        "MONAI_ZOO_SOURCE": "local",
        "PYTHONPATH": path,  # of the processes that it starts, which wants this variable to be there
    }


def serve(request: Request) -> None:
    """Serves until Ctrl-C or SIGTERM; trainings that run then are ended.

    Raises:
        InputError: what is to be served is not there, or others could reach it.
        ResourceError: code NO_MONAI_LABEL, this environment has no MONAI Label.
    """
    require_monai_label()
    given = environment(request)
    check_start(
        request.host,
        token=request.token,
        studies=given["MONAI_LABEL_STUDIES"],
        origins=request.origins,
        outside=request.outside,
    )
    os.environ.update(given)

    import psutil
    import uvicorn
    from monailabel.app import app
    from monailabel.utils.async_tasks.task import AsyncTask
    from monailabel.utils.async_tasks.utils import background_executors

    served = guarded(
        TrainingChecked(app),
        token=request.token,
        origins=request.origins,
        hosts=request.hosts,
        store=given["MONAI_LABEL_STUDIES"],
        outside=request.outside,
    )
    # uvicorn raises the signal again when it has closed; without a handler that would end this process at once
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))
    try:
        uvicorn.run(served, host=request.host, port=request.port, **SERVER)
    finally:
        for method, waiting in background_executors.items():
            waiting.shutdown(wait=False, cancel_futures=True)
            with contextlib.suppress(psutil.NoSuchProcess):  # it has just ended
                AsyncTask.stop(method)


class TrainingChecked:
    """Answers at once when a training is asked for that has nothing to train on.

    MONAI Label starts a process first, and the person would have to look for its last words.

    Args:
        app: MONAI Label's.
    """

    def __init__(self, app: Any) -> None:
        self.app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """As ASGI wants it."""
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith("/train/"):
            from fastapi import HTTPException
            from fastapi.responses import JSONResponse
            from monailabel.interfaces.utils.app import app_instance

            name = scope["path"].removeprefix("/train/").strip("/")
            try:
                app_instance().check_training(name or None)
            except HTTPException as error:
                await JSONResponse({"detail": error.detail}, status_code=error.status_code)(scope, receive, send)
                return
        await self.app(scope, receive, send)


def require_monai_label() -> None:
    """Whether this environment can serve.

    Raises:
        ResourceError: code NO_MONAI_LABEL.
    """
    from importlib.util import find_spec

    if find_spec("monailabel") is None:
        raise ResourceError(
            "MONAI Label is not in this environment; it wants an older pydicom and has one of its own",
            fix="Run `make label`, then `.venv-label/bin/semi-med label` with the same options.",
            code="NO_MONAI_LABEL",
        )
