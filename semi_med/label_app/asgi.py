"""The guarded server for those who start MONAI Label with its own command.

    monailabel start_server --app <app> --studies <folder> --host 127.0.0.1 --uvicorn_app semi_med.label_app.asgi:app

The environment says what a command line would: SEMI_MED_LABEL_TOKEN, and with commas SEMI_MED_LABEL_ORIGINS,
SEMI_MED_LABEL_HOSTS. Without a token only this machine is served, whatever the server listens on.
"""

from __future__ import annotations

import os

from monailabel.app import app as stock

from semi_med.label_app.guard import guarded
from semi_med.label_app.serve import TrainingChecked


def _listed(variable: str) -> list[str]:
    return [word for word in os.environ.get(variable, "").split(",") if word]


app = guarded(
    TrainingChecked(stock),
    token=os.environ.get("SEMI_MED_LABEL_TOKEN") or None,
    origins=_listed("SEMI_MED_LABEL_ORIGINS"),
    hosts=_listed("SEMI_MED_LABEL_HOSTS"),
)
