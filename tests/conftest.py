"""Fixtures that several rooms share: a tiny data set on disk, and a bundle to run on it."""

from __future__ import annotations

import json
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SHAPE = (24, 22, 20)
SECTIONS = {"labeled": 3, "unlabeled": 4, "validation": 1, "test": 2}


@dataclass(frozen=True)
class TinyData:
    """Ten scans of 24 x 22 x 20 voxels with a bright ball, on disk.

    Attributes:
        folder: `images/` and `labels/`. Labels of unlabelled and test cases are files that no reader accepts.
        data_list: 3 labelled, 4 unlabelled (with `monitor_label`), 1 validation, 2 test cases.
        hidden: the labels that must not be opened, readable ones, by case.
    """

    folder: Path
    data_list: Path
    hidden: Path


def write_case(folder: Path, name: str, *, seed: int, label_folder: Path | None = None) -> None:
    """A noisy scan with a bright ball of random place and radius as its label, oblique and anisotropic."""
    import nibabel as nib

    random = np.random.default_rng(seed)
    grid = np.stack(np.meshgrid(*(np.arange(s) for s in SHAPE), indexing="ij"))
    centre = random.uniform(8, 14, (3, 1, 1, 1))
    label = (((grid - centre) ** 2).sum(0) < random.uniform(4, 6) ** 2).astype(np.uint8)
    image = (label * 80 + random.normal(100, 10, SHAPE)).astype(np.int16)
    affine = np.diag([-1.0, -1.0, 1.5, 1.0])  # LPS axes
    affine[:3, 3] = 10, 20, -5
    for part, array, place in (("images", image, folder), ("labels", label, label_folder or folder)):
        (place / part).mkdir(parents=True, exist_ok=True)
        nib.save(nib.Nifti1Image(array, affine), place / part / f"{name}.nii.gz")


@pytest.fixture(scope="session", autouse=True)
def _signals_as_in_a_terminal() -> None:
    """A shell lets what it starts in the background ignore Ctrl-C, and nohup the end of the terminal."""
    for number, usual in ((signal.SIGINT, signal.default_int_handler), (signal.SIGHUP, signal.SIG_DFL)):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, usual)


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory: pytest.TempPathFactory) -> TinyData:
    root = tmp_path_factory.mktemp("tiny")
    folder, hidden = root / "data", root / "hidden"
    content: dict[str, Any] = {"name": "tiny", "labels": {"0": "background", "1": "ball"}}
    number = 0
    for section, count in SECTIONS.items():
        content[section] = []
        for _ in range(count):
            name = f"case_{number}"
            secret = section in ("unlabeled", "test")
            write_case(folder, name, seed=number, label_folder=hidden if secret else None)
            if secret:
                (folder / "labels" / f"{name}.nii.gz").write_bytes(b"whoever opens this has looked at a hidden label")
            key = "monitor_label" if section == "unlabeled" else "label"
            content[section].append({"image": f"images/{name}.nii.gz", key: f"labels/{name}.nii.gz"})
            number += 1
    (folder / "data_list.json").write_text(json.dumps(content))
    return TinyData(folder, folder / "data_list.json", hidden)


TINY_NETWORK = {"base_filters": 2, "levels": 2, "dropout": 0.5}
TINY_SETTINGS: dict[str, Any] = {
    "crop_size": [16, 16, 16],
    "stride": [8, 8, 8],
    "validation_stride": [16, 16, 16],
    "max_shift": [4, 4, 4],
    **{f"{name}#{key}": value for name in ("network_def", "peer_def") for key, value in TINY_NETWORK.items()},
    "max_iterations": 4,
    "iterations_per_epoch": 4,
    "val_interval": 4,
    "checkpoint_interval": 2,
    "device": "cpu",
    "train#handlers#0#tensorboard": False,
}


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The co-training bundle for LA, composed into a temporary folder."""
    from semi_med.recipes.compose import compose

    return compose("cotrain", "la", tmp_path_factory.mktemp("bundles") / "cotrain_la")


@dataclass(frozen=True)
class BundleRunner:
    """Runs configurations of the tiny bundle in this process, as `python -m monai.bundle run` does.

    Attributes:
        bundle: its folder.
        settings: overrides that make it tiny.
    """

    bundle: Path
    settings: dict[str, Any]

    def __call__(self, *configs: str, run_id: str | None = "training", **overrides: Any) -> None:
        """Run; nested settings are written with `#` and passed as `**{"a#b": value}`."""
        from monai.bundle import run

        files = [str(self.bundle / "configs" / f"{name}.json") for name in configs or ("train",)]
        settings = {"bundle_root": str(self.bundle), **self.settings, **overrides}
        run(run_id=run_id, config_file=files if len(files) > 1 else files[0], logging_file=False, **settings)


@pytest.fixture
def run_tiny(tiny_bundle: Path, tiny_data: TinyData) -> BundleRunner:
    data = {"dataset_dir": str(tiny_data.folder), "data_list_file": str(tiny_data.data_list)}
    return BundleRunner(tiny_bundle, {**TINY_SETTINGS, **data})


@pytest.fixture
def error_of() -> Callable[[Callable[[], object]], Any]:
    """The project's own error inside whatever a call raises."""
    from semi_med.errors import root_cause

    def call(action: Callable[[], object]) -> Any:
        with pytest.raises(Exception) as caught:
            action()
        return root_cause(caught.value)

    return call


@pytest.fixture(autouse=True)
def _restore_import_path() -> Iterator[None]:
    """`monai.bundle.run` puts each bundle on the import path; take it off again."""
    import sys

    before = list(sys.path)
    yield
    sys.path[:] = before
