"""What the configurations of our bundles call: where the bundle is, whether its settings and data can be used.

A MONAI configuration cannot know its own path, takes any misspelt override in silence, and buries an error in a chain
of its own. These functions mend that from inside the configuration, so that `python -m monai.bundle run` stays the
way to start a bundle.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import signal
import sys
import textwrap
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

from semi_med.bundle_settings import carry_over, changed_settings, running_folder
from semi_med.bundle_settings import check_settings as check_settings  # configurations call these as bundle.<name>
from semi_med.bundle_settings import trained_with as trained_with
from semi_med.bundle_settings import use_trained_with as use_trained_with
from semi_med.errors import InputError, SemiMedError, root_cause
from semi_med.runtime import quiet_unused_readers

if TYPE_CHECKING:
    from torch import Tensor, nn

quiet_unused_readers()

_HOW_TO_GET: dict[str, str] = {
    "la": (
        "LA is the 2018 Atrial Segmentation Challenge: register at atriaseg2018.cardiacatlas.org, download the "
        "training set, then run `semi-med prepare la <downloaded folder> <target>` and give the target as "
        "--dataset_dir. An already cropped copy (images/ and labels/ with equal names, NIfTI) works too"
    ),
    "chase": (
        "CHASE_DB1 is on researchdata.kingston.ac.uk/96: unpack it, run `semi-med prepare chase_db1 <folder> <target>` "
        "and give the target as --dataset_dir"
    ),
    "covid19": (
        "COVID-19 CT is on medicalsegmentation.com/covid19: run `semi-med prepare covid19_ct <folder> <target>` on the "
        "folder with tr_im.nii.gz and tr_mask.nii.gz, and give the target as --dataset_dir"
    ),
}


def find_root(name: str) -> str:
    """The folder of the bundle whose configuration is being run, as an absolute path.

    Looked for in this order: the folder of the configuration that is run, the working directory, `bundles/<name>` in
    it, `bundles/<name>` of the source tree that semi_med was installed from.

    Raises:
        InputError: there is no such folder. From Python, pass `bundle_root` as an override.
    """
    running = running_folder()
    candidates = [] if running is None else [running.parent]
    candidates += [Path.cwd(), Path.cwd() / "bundles" / name]
    candidates.append(Path(__file__).resolve().parents[1] / "bundles" / name)
    for candidate in candidates:
        metadata = candidate / "configs" / "metadata.json"
        if metadata.is_file() and json.loads(metadata.read_text()).get("bundle") == name:
            return str(candidate.resolve())
    raise InputError(
        f"the folder of bundle {name} was not found",
        fix="Run it from the bundle's folder, or pass --bundle_root <folder>",
        code="BUNDLE_ROOT",
    )


def explain_errors() -> None:
    """On the command line of `monai.bundle`, let a failure end with its cause instead of MONAI's chain of errors.

    An error of ours is shown alone; any other keeps its traceback and gets its root cause as the last line. Called
    from Python, for example inside MONAI Label, nothing is changed.
    """
    if Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py"):
        sys.excepthook = _explain


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    cause = root_cause(error)
    code = 1
    if isinstance(cause, SemiMedError):
        code = cause.exit_code
        print(f"\nerror: {cause}", file=sys.stderr)
    elif isinstance(error, KeyboardInterrupt):
        code = 128 + signal.SIGINT
        print("\ninterrupted", file=sys.stderr)
    else:
        traceback.print_exception(kind, error, trace)
        print(f"\nerror: {type(cause).__name__}: {cause}", file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # An excepthook cannot choose the exit status otherwise.
    os._exit(code)


def load_sections(
    data_list_file: str | Path, dataset_dir: str | Path, *, monitor: bool = False, task: str = ""
) -> dict[str, Any]:
    """Sections of a data list with absolute paths, its `labels` and what is `ignored` in them.

    Args:
        data_list_file: JSON data list.
        dataset_dir: the folder that its paths are relative to.
        monitor: also give the labels of unlabelled cases that the list has for monitoring.
        task: name of the task, for advice when the folder is missing.

    Raises:
        InputError: the list or the folder is missing, with how to get the data.
    """
    from semi_med.data.data_list import load_data_list

    if not Path(data_list_file).is_file():
        raise InputError(
            "the data list does not exist",
            where=data_list_file,
            fix="Give another with --data_list_file; data_lists/ of the bundle holds the published ones",
            code="MISSING",
        )
    data_list = load_data_list(data_list_file)
    if not Path(dataset_dir).is_dir():
        how = _HOW_TO_GET.get(task, "Give the folder that the data list's paths are relative to as --dataset_dir")
        raise InputError(
            f"the data set's folder is missing (the data list names "
            f"{sum(data_list.counts().values())} scans relative to it)",
            where=Path(dataset_dir).absolute(),
            fix=f"{how}. To try everything without data: `semi-med demo`",
            code="MISSING",
        )
    head = {"labels": list(data_list.label_values), "ignored": data_list.ignored}
    return {**head, **data_list.sections(dataset_dir, monitor=monitor)}


def check_data(
    labeled: Sequence[Mapping[str, Any]],
    unlabeled: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]],
    *,
    classes: int,
    data_list_file: str | Path | None = None,
    dataset_dir: str | Path | None = None,
    needs_unlabeled: bool = True,
    transductive: bool = False,
    allow_missing_class: bool = False,
    flat: bool = False,
) -> None:
    """Look at every file of the training side before anything is trained; the test section only by name.

    Unlabelled scans that are those of the test too, and a class that no labelled scan shows, are refused unless
    `transductive` and `allow_missing_class` say that it is meant so. For a 2D network files of two axes are slices
    (`flat`).

    Raises:
        ProblemsError: every problem of the data at once.
    """
    from semi_med.data.validation import Options, check_sections

    sections: dict[str, list[dict[str, Any]]] = {
        "labeled": [dict(item) for item in labeled],
        "unlabeled": [dict(item) for item in unlabeled],
        "validation": [dict(item) for item in validation],
    }
    ignored = None
    if data_list_file is not None and dataset_dir is not None and Path(dataset_dir).is_dir():
        listed = load_sections(data_list_file, dataset_dir)
        ignored = listed["ignored"]
        # An override of the cases (MONAI Label does it) has nothing to do with the list's test section.
        if {str(item["image"]) for item in listed["labeled"]} == {str(item["image"]) for item in sections["labeled"]}:
            sections["test"] = listed["test"]
    values: Sequence[int] = range(classes)
    channels = 1
    if data_list_file is not None and Path(data_list_file).is_file():
        from semi_med.data.data_list import load_data_list

        head = load_data_list(data_list_file)
        values = head.label_values if len(head.label_values) == classes else values
        channels = max(1, len(head.modality))
    needed = ("labeled", "unlabeled", "validation") if needs_unlabeled else ("labeled", "validation")
    findings = check_sections(
        sections,
        labels=values,
        sections_needed=needed,
        title="the data cannot be trained on",
        options=Options(
            channels=channels,
            transductive=transductive,
            allow_missing_class=allow_missing_class,
            ignored=ignored,
            flat=flat,
        ),
    )
    log = logging.getLogger("semi_med")
    for note in findings.notes:
        log.info(f"note: {note}")
    log.info(f"data checked, cases read: {findings.cases}")


def prepare_run(
    bundle_root: str | Path,
    output_dir: str | Path,
    *,
    settings: Mapping[str, Any],
    configs: Sequence[str] = ("train",),
    resume: bool = False,
) -> None:
    """Make the run's folder a bundle of its own, with what was run written down in `run.json`.

    When `output_dir` is not the bundle itself, its configurations, documents and licence are copied there, and what
    training and inference share (networks, crop, stride) is written into its `inference.json` as it is run, so that
    the folder can be predicted with, moved and zipped. In the bundle itself it lies beside the models, see
    `bundle_settings.trained_with`. When a run is resumed everything stays as it was.

    Args:
        bundle_root: the bundle that is run.
        output_dir: the run's folder; made if it is missing.
        settings: what to write down first, beside all that was changed.
        configs: names of the configuration files that are run.
        resume: go on with the run that is there.

    Raises:
        InputError: the folder cannot be written, or holds a run that is not to be resumed, or the device is not there.
    """
    import torch

    from semi_med.engines.checkpoints import check_output
    from semi_med.files import write_atomically
    from semi_med.recipes.compose import to_json
    from semi_med.runtime import versions

    root, output = Path(bundle_root).resolve(), Path(output_dir).resolve()
    device = torch.device(str(settings.get("device", "cpu")))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device} was asked for, but CUDA is not available", fix="Use --device cpu")
    check_output(output, resume=resume)
    if int(os.environ.get("RANK", "0")) > 0 or (resume and (output / "run.json").is_file()):
        return
    try:
        output.mkdir(parents=True, exist_ok=True)
        if output != root:
            for part in ("configs", "docs", "data_lists", "LICENSE"):
                source = root / part
                if source.is_dir():
                    shutil.copytree(source, output / part, dirs_exist_ok=True)
                elif source.is_file():
                    shutil.copy2(source, output / part)
            carry_over(root, output)
        plain = {key: value if isinstance(value, int | float | bool) else str(value) for key, value in settings.items()}
        changed = changed_settings(root, *configs)
        content = {"bundle": root.name, "settings": plain, "changed": changed, "data": _data_of(settings)}
        content["versions"] = versions()
        write_atomically(output / "run.json", to_json(content))
    except OSError as error:
        raise InputError(
            f"the folder cannot be written: {error.strerror or error}",
            where=output,
            fix="Choose another --output_dir",
            code="OUTPUT",
        ) from error
    logging.getLogger("semi_med").info(f"writing to {output}")


def _data_of(settings: Mapping[str, Any]) -> dict[str, str | None]:
    """What tells the cases and files of a run from others, wherever they lie; nothing where there is no list."""
    from semi_med.data.data_list import load_data_list
    from semi_med.data.identity import cases_digest, files_digest

    named = settings.get("data_list_file")
    if named is None or not Path(str(named)).is_file():
        return {}
    listed = load_data_list(Path(str(named)))
    place = str(settings.get("dataset_dir", ""))
    return {"cases_sha256": cases_digest(listed), "files_sha256": files_digest(listed, place)}


def unlabeled_with_labeled(
    sections: Mapping[str, Any], *, monitor: bool = False, reuse: bool = True, limit: int | None = None
) -> list[dict[str, Any]]:
    """The unlabelled cases and, as if they were some, the labelled ones: a method may learn from both views of all.

    Args:
        sections: what `load_sections` gives.
        monitor: let the label of a labelled case be watched like that of an unlabelled one.
        reuse: take the labelled ones in.
        limit: only as many unlabelled cases, the first of the list; None for all.
    """
    unlabeled = list(sections["unlabeled"][:limit])
    if not reuse:
        return unlabeled
    again = [
        {
            **{key: value for key, value in item.items() if key != "label"},
            **({"monitor_label": item["label"]} if monitor else {}),
        }
        for item in sections["labeled"]
    ]
    return [*unlabeled, *again]


def choose(setting: str, name: str, **choices: Any) -> Any:
    """One of several components, by the name that a setting has.

    Raises:
        InputError: code SETTING, there is no such choice.
    """
    if name not in choices:
        raise InputError(
            f"--{setting} must be one of {', '.join(choices)}, got {name!r}",
            fix=f"For example --{setting} {next(iter(choices))}",
            code="SETTING",
        )
    return choices[name]


def check_weights(weights: str | Path) -> None:
    """Refuse to go on without the weights, saying how to get them.

    Raises:
        InputError: the file is missing.
    """
    if not Path(weights).is_file():
        raise InputError(
            "there are no weights",
            where=weights,
            fix="Train first (configs/train.json writes models/model.pt), or name a file with --weights",
            code="NO_WEIGHTS",
        )


def start_from(
    network: nn.Module,
    weights: str | Path | None,
    *,
    part: Literal["model", "peer"] = "model",
    encoder_weights: str | Path | None = None,
) -> nn.Module:
    """The network with the weights of an earlier run, such as a pre-training, or of a published encoder.

    Args:
        network: of the same architecture.
        weights: a `models/model.pt`; None leaves the network as it is.
        part: the first network of that run, or its peer. If it had no peer of this architecture, the network stays as
            it is, and the log says so.
        encoder_weights: for a network with `load_encoder`, see `semi_med.networks.EfficientUNet`; not looked at where
            there are `weights`.

    Returns:
        The network that came in.

    Raises:
        InputError: code NO_WEIGHTS, the file is missing or is not of this network; code SETTING, the network has no
            encoder that weights are published for.
        ResourceError: code DOWNLOAD, published weights could not be downloaded.
    """
    if weights is None and encoder_weights is not None:
        load = getattr(network, "load_encoder", None)
        if load is None:
            raise InputError(
                f"{type(network).__name__} has no encoder with published weights",
                fix="Set encoder_weights to null, or network_def to semi_med.networks.EfficientUNet",
                code="SETTING",
            )
        load(encoder_weights)
    if weights is None:
        return network
    import torch

    path = Path(weights)
    if not path.is_file():
        raise InputError(
            "the weights to start from are missing",
            where=path.absolute(),
            fix="Give the models/model.pt of an earlier run as --pretrained (for bcp the run of bcp_pretrain), or "
            "--pretrained null to start from random weights",
            code="NO_WEIGHTS",
        )
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if part == "peer" and _shapes(content.get("peer") or {}) != _shapes(network.state_dict()):
            logging.getLogger("semi_med").info(f"{path} has no peer of this architecture: the peer begins anew")
            return network
        network.load_state_dict(content.get(part, content))
    except Exception as error:
        why = textwrap.shorten(str(error) or type(error).__name__, 200)
        raise InputError(
            f"the weights to start from are not of this network: {why}",
            where=path,
            fix="Take the models/model.pt of a run with the same network_def",
            code="NO_WEIGHTS",
        ) from error
    logging.getLogger("semi_med").info(f"starting from {path}{', its peer' if part == 'peer' else ''}")
    return network


def _shapes(state: Mapping[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(value.shape) for name, value in state.items()}


def scans_of(folder: str | Path, *, pictures: bool = False) -> list[dict[str, str]]:
    """The scan files of a folder, sorted, as data-list items.

    Args:
        folder: it is not searched deeper.
        pictures: of a 2D bundle: the scans may be pictures. Else pictures are passed over.

    Raises:
        InputError: the folder is missing or has none; or it has volumes and pictures, and both are meant.
    """
    from semi_med.inference.batch_files import scan_files
    from semi_med.inference.io import IMAGE_SUFFIXES, READ_SUFFIXES

    root, suffixes = Path(folder), READ_SUFFIXES if pictures else IMAGE_SUFFIXES
    files: list[Path] = []
    if root.is_dir():
        files = scan_files(root) if pictures else sorted(p for p in root.glob("*") if p.name.endswith(suffixes))
    if not files:
        raise InputError(
            f"no scan ({', '.join(suffixes)}) was found",
            where=root.absolute(),
            fix="Give the folder of the scans as --dataset_dir",
            code="MISSING",
        )
    return [{"image": str(file)} for file in files]


def names_of(batch: Sequence[Mapping[str, Any]]) -> list[dict[str, str]]:
    """Names of the cases of a batch, as MONAI's MetricsSaver wants them."""
    return [{"filename_or_obj": str(item["case"])} for item in batch]
