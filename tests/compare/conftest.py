"""Plans of comparisons, and trainings that only pretend."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from compare_samples import ROW, Trainings, write_base

from semi_med.compare import job as job_module
from semi_med.compare.plan import Plan
from semi_med.compare.planning import Request, prepare_plan


@pytest.fixture(autouse=True)
def _no_waiting_for_disks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A plan writes many small files; that they survive a power cut is not the matter here."""
    monkeypatch.setattr("os.fsync", lambda descriptor: None)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    write_base(tmp_path / "data")
    return tmp_path / "data"


@pytest.fixture
def ask(data: Path, tmp_path: Path) -> Callable[..., Request]:
    """A request for co-training with 1 and 2 labelled subjects and two seeds, with anything changed."""

    def make(**changed: Any) -> Request:
        given: dict[str, Any] = {
            "folder": tmp_path / "out",
            "task": "phantom",
            "methods": ("cotrain",),
            "labeled": (1, 2),
            "seeds": 2,
            "dataset_dir": data,
            "iterations": 20,
        }
        return Request(**{**given, **changed})

    return make


@pytest.fixture
def plan(ask: Callable[..., Request]) -> Plan:
    return prepare_plan(ask())


@pytest.fixture
def trainings(monkeypatch: pytest.MonkeyPatch) -> Trainings:
    """No training is run, and test cases are predicted and measured without a network: Dice is 0.5."""
    found = Trainings()

    def predict(run: Path, cases: Any, data: Path, target: Path, *, device: str | None) -> None:
        for case in cases:
            (target / f"{case.name}_seg.nii.gz").write_text((run / "models" / "model.pt").read_text())

    def measure(listed: Any, data: Path, predictions: Path) -> list[dict[str, Any]]:
        for case in listed.test:
            assert (predictions / f"{case.name}_seg.nii.gz").is_file()
        return [{**ROW, "case": case.name} for case in listed.test]

    monkeypatch.setattr(job_module.launch, "run", found.run)
    monkeypatch.setattr(job_module, "predict_cases", predict)
    monkeypatch.setattr(job_module, "measure_cases", measure)
    monkeypatch.setattr(job_module, "measure_iou", lambda *_: {"background": 0.9, "ball": 0.3, "mean IoU": 0.6})
    return found
