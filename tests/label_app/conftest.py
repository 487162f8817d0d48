from __future__ import annotations

from pathlib import Path

import pytest
from label_samples import write_study

from semi_med.label_app.models import Bundle, Model

NAMES = [f"scan_{number}" for number in range(8)]


@pytest.fixture(scope="session")
def bundle_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Co-training for three classes."""
    from semi_med.recipes.compose import compose

    return compose("cotrain", "hippocampus", tmp_path_factory.mktemp("bundles") / "cotrain_hippocampus")


@pytest.fixture(scope="session")
def supervised_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from semi_med.recipes.compose import compose

    return compose("supervised", "hippocampus", tmp_path_factory.mktemp("bundles") / "supervised_hippocampus")


@pytest.fixture
def model(bundle_folder: Path, tmp_path: Path) -> Model:
    return Model("hippo", Bundle.read(bundle_folder), tmp_path / "work" / "hippo", "cpu")


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Eight scans, and labels in `study_labels`."""
    return write_study(tmp_path / "study", NAMES)
