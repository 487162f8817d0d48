"""What the configurations of our bundles call: where the bundle is, whether its settings and data can be used.

A MONAI configuration cannot know its own path, takes any misspelt override in silence, and buries an error in a chain
of its own. These functions mend that from inside the configuration, so that `python -m monai.bundle run` stays the
way to start a bundle.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import json
import logging
import os
import shutil
import sys
import traceback
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from semi_med.errors import InputError, SemiMedError

_ADDED_BY_TOOLS = {
    # MONAI's experiment tracking and MONAI Label add these to a configuration.
    *("displayable_configs", "tracking", "tracking_uri", "experiment_name", "run_name", "execute_config"),
    *("is_not_rank0", "_meta_", "init_config", "param_to_report"),
}

_HOW_TO_GET: dict[str, str] = {
    "la": (
        "LA is the 2018 Atrial Segmentation Challenge: register at atriaseg2018.cardiacatlas.org, download the "
        "training set, then run `semi-med prepare la <downloaded folder> <target>` and give the target as "
        "--dataset_dir. An already cropped copy (images/ and labels/ with equal names, NIfTI) works too"
    ),
}


def find_root(name: str) -> str:
    """The folder of the bundle whose configuration is being run, as an absolute path.

    Looked for in this order: the folder of the `--config_file` on the command line, the working directory,
    `bundles/<name>` in it, `bundles/<name>` of the source tree that semi_med was installed from.

    Raises:
        InputError: there is no such folder. From Python, pass `bundle_root` as an override.
    """
    candidates = [*_roots_of_config_files(sys.argv), Path.cwd(), Path.cwd() / "bundles" / name]
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


def _roots_of_config_files(arguments: Sequence[str]) -> list[Path]:
    texts = []
    for i, argument in enumerate(arguments):
        if argument == "--config_file" and i + 1 < len(arguments):
            texts.append(arguments[i + 1])
        elif argument.startswith("--config_file="):
            texts.append(argument.split("=", 1)[1])
    files = [part.strip(" '\"") for text in texts for part in text.strip("[]").split(",")]
    return [Path(file).absolute().parent.parent for file in files if file]


def explain_errors() -> None:
    """On the command line of `monai.bundle`, let a failure end with its cause instead of MONAI's chain of errors.

    An error of ours is shown alone; any other keeps its traceback and gets its root cause as the last line. Called
    from Python, for example inside MONAI Label, nothing is changed.
    """
    if Path(sys.argv[0]).parts[-3:] == ("monai", "bundle", "__main__.py"):
        sys.excepthook = _explain


def _explain(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    chain = list(_chain(error))
    ours = next((e for e in chain if isinstance(e, SemiMedError)), None)
    if ours is None:
        traceback.print_exception(kind, error, trace)
        root = chain[-1]
        print(f"\nerror: {type(root).__name__}: {root}", file=sys.stderr)
    else:
        print(f"\nerror: {ours}", file=sys.stderr)
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    # An excepthook cannot choose the exit status otherwise.
    os._exit(ours.exit_code if ours is not None else 1)


def _chain(error: BaseException) -> Iterable[BaseException]:
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        yield current
        current = current.__cause__ or current.__context__


def check_settings(bundle_root: str | Path) -> None:
    """Refuse overrides that name no setting of the bundle.

    MONAI adds an unknown override to the configuration and goes on without it. Here every id of the running
    configuration must exist in one of the bundle's own files, or lie inside a component or list that does.

    Raises:
        InputError: naming the setting and the nearest one there is.
    """
    known = {id_ for file in sorted((Path(bundle_root) / "configs").glob("*.json")) for id_ in _ids(_read(file))}
    if not known:
        raise InputError("the bundle has no configs/*.json", where=bundle_root, code="BUNDLE")
    containers = {id_ for id_, value in known_containers(bundle_root).items() if value}
    for id_ in _running_ids():
        parent, _, last = id_.rpartition("::")
        top = id_.split("::", 1)[0]
        if id_ in known or top in _ADDED_BY_TOOLS or top.startswith("_") or last.startswith("_"):
            continue
        if parent in known and parent not in containers or (parent and parent not in known):
            continue  # an argument of a component, judged by the component, or inside something that is refused itself
        near = difflib.get_close_matches(id_, known, n=1)
        shown = id_.replace("::", "#")
        raise InputError(
            f"there is no setting --{shown}",
            fix=f"Did you mean --{near[0].replace('::', '#')}?" if near else "See docs/README.md of the bundle",
            code="SETTING",
        )


def known_containers(bundle_root: str | Path) -> dict[str, bool]:
    """Ids of dictionaries in the bundle's files, and whether they are plain (not a component)."""
    plain: dict[str, bool] = {"": True}
    for file in sorted((Path(bundle_root) / "configs").glob("*.json")):
        for id_, value in _walk(_read(file), ""):
            if isinstance(value, dict):
                plain[id_] = "_target_" not in value
    return plain


def _read(file: Path) -> Any:
    return json.loads(file.read_text())


def _walk(value: Any, prefix: str) -> Iterable[tuple[str, Any]]:
    items: Iterable[tuple[Any, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, child in items:
        id_ = f"{prefix}::{key}" if prefix else str(key)
        id_ = id_.replace("#", "::")
        yield id_, child
        yield from _walk(child, id_)


def _ids(config: Any) -> list[str]:
    return [id_ for id_, _ in _walk(config, "")]


def _running_ids() -> list[str]:
    """Ids of the configuration in whose evaluation this is called.

    An expression of a configuration has no access to the configuration itself; MONAI's resolver that evaluates it is
    up the stack and holds it.
    """
    from monai.bundle.reference_resolver import ReferenceResolver

    frame = inspect.currentframe()
    while frame is not None:
        resolver = frame.f_locals.get("self")
        if isinstance(resolver, ReferenceResolver):
            return [id_ for id_ in resolver.items if id_]
        frame = frame.f_back
    return []


@functools.lru_cache(maxsize=4)
def _load(data_list_file: str, dataset_dir: str, monitor: bool, task: str) -> dict[str, Any]:
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
    return {"labels": list(data_list.label_values), **data_list.sections(dataset_dir, monitor=monitor)}


def load_sections(
    data_list_file: str | Path, dataset_dir: str | Path, *, monitor: bool = False, task: str = ""
) -> dict[str, Any]:
    """Sections of a data list with absolute paths, and its `labels`.

    Args:
        data_list_file: JSON data list.
        dataset_dir: the folder that its paths are relative to.
        monitor: also give the labels of unlabelled cases that the list has for monitoring.
        task: name of the task, for advice when the folder is missing.

    Raises:
        InputError: the list or the folder is missing, with how to get the data.
    """
    return _load(str(data_list_file), str(dataset_dir), monitor, task)


def check_data(
    labeled: Sequence[Mapping[str, Any]],
    unlabeled: Sequence[Mapping[str, Any]],
    validation: Sequence[Mapping[str, Any]],
    *,
    classes: int,
    data_list_file: str | Path | None = None,
    dataset_dir: str | Path | None = None,
    needs_unlabeled: bool = True,
) -> None:
    """Look at every file of the training side before anything is trained; the test section only by name.

    Raises:
        ProblemsError: every problem of the data at once.
    """
    from semi_med.data.validation import check_sections

    sections: dict[str, list[dict[str, Any]]] = {
        "labeled": [dict(item) for item in labeled],
        "unlabeled": [dict(item) for item in unlabeled],
        "validation": [dict(item) for item in validation],
    }
    if data_list_file is not None and dataset_dir is not None and Path(dataset_dir).is_dir():
        listed = load_sections(data_list_file, dataset_dir)
        # An override of the cases (MONAI Label does it) has nothing to do with the list's test section.
        if {str(item["image"]) for item in listed["labeled"]} == {str(item["image"]) for item in sections["labeled"]}:
            sections["test"] = listed["test"]
    needed = ("labeled", "unlabeled", "validation") if needs_unlabeled else ("labeled", "validation")
    findings = check_sections(
        sections, labels=range(classes), sections_needed=needed, title="the data cannot be trained on"
    )
    log = logging.getLogger("semi_med")
    for note in findings.notes:
        log.info(f"note: {note}")
    log.info(f"data checked, cases read: {findings.cases}")


def prepare_run(bundle_root: str | Path, output_dir: str | Path, *, settings: Mapping[str, Any]) -> None:
    """Make the run's folder a bundle of its own, with what was run written down in `run.json`.

    When `output_dir` is not the bundle itself, its configurations, documents and licence are copied there, so that
    the folder can be predicted with, moved and zipped.

    Raises:
        InputError: the folder cannot be written, or the device is not there.
    """
    import torch

    from semi_med.files import write_atomically
    from semi_med.runtime import versions

    root, output = Path(bundle_root).resolve(), Path(output_dir).resolve()
    device = torch.device(str(settings.get("device", "cpu")))
    if device.type == "cuda" and not torch.cuda.is_available():
        raise InputError(f"device {device} was asked for, but CUDA is not available", fix="Use --device cpu")
    if int(os.environ.get("RANK", "0")) > 0:
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
        plain = {key: value if isinstance(value, int | float | bool) else str(value) for key, value in settings.items()}
        content = {"bundle": root.name, "settings": plain, "versions": versions()}
        write_atomically(output / "run.json", json.dumps(content, indent=2) + "\n")
    except OSError as error:
        raise InputError(
            f"the folder cannot be written: {error.strerror or error}",
            where=output,
            fix="Choose another --output_dir",
            code="OUTPUT",
        ) from error
    logging.getLogger("semi_med").info(f"writing to {output}")


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


def scans_of(folder: str | Path) -> list[dict[str, str]]:
    """The scan files of a folder, sorted, as data-list items.

    Raises:
        InputError: the folder is missing or has none.
    """
    from semi_med.inference.io import IMAGE_SUFFIXES

    root = Path(folder)
    files = sorted(p for p in root.glob("*") if p.name.endswith(IMAGE_SUFFIXES)) if root.is_dir() else []
    if not files:
        raise InputError(
            f"no scan ({', '.join(IMAGE_SUFFIXES)}) was found",
            where=root.absolute(),
            fix="Give the folder of the scans as --dataset_dir",
            code="MISSING",
        )
    return [{"image": str(file)} for file in files]
