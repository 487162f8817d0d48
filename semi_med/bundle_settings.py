"""The settings a bundle is run with: are there such, and which were changed.

An expression of a configuration has no access to the configuration itself. MONAI's parser that evaluates it is up the
stack and holds it, with all overrides.
"""

from __future__ import annotations

import difflib
import inspect
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from pydoc import locate
from typing import TYPE_CHECKING, Any

from semi_med.errors import InputError

if TYPE_CHECKING:
    from monai.bundle import ConfigParser

_NETWORKS = ("network_def", "peer_def")
_ADDED_BY_TOOLS = {
    # MONAI's experiment tracking and MONAI Label add these to a configuration.
    *("displayable_configs", "tracking", "tracking_uri", "experiment_name", "run_name", "execute_config"),
    *("is_not_rank0", "save_execute_config", "init_config", "param_to_report"),
}


def check_settings(bundle_root: str | Path, *configs: str) -> None:
    """Refuse overrides that name no setting of the bundle, or are of another kind than its default.

    MONAI adds an unknown override to the configuration and goes on without it. Here every id of the running
    configuration must exist in the files it came from, be an argument of the component it stands in, or lie inside
    something that was replaced as a whole.

    On MONAI's command line `false` is a text, and as such true. Here `true`, `false` and `null` become what they mean
    wherever the default is no text.

    Args:
        bundle_root: the bundle's folder.
        configs: names of the files that are run, such as "train"; none for all of the bundle.

    Raises:
        InputError: code SETTING, naming the setting and the nearest one there is, or the kind that is wanted.
    """
    known = dict(_ids(merged(bundle_root, *configs)))
    parser = running_parser()
    _mean_what_is_said(parser, known)
    running = dict(_ids(_config(parser)))
    _check_kinds(running, known)
    for id_ in running:
        parent, _, last = id_.rpartition("::")
        top = id_.split("::", 1)[0]
        if id_ in known or top in _ADDED_BY_TOOLS or top.startswith("_") or last.startswith("_"):
            continue
        if parent and (parent not in known or not isinstance(running[parent], dict)):
            continue
        choices = _arguments(running.get(parent), parser)
        if choices is None or last in choices:
            continue
        fix = _advice(id_, [*known, *(f"{parent}::{name}" for name in choices)], bundle_root)
        raise InputError(f"there is no setting --{_shown(id_)}", fix=fix, code="SETTING")
    _change_both_networks(parser, known)


def _advice(id_: str, known: Sequence[str], bundle_root: str | Path) -> str:
    for name in config_names(bundle_root):
        if id_ in dict(_ids(merged(bundle_root, name))):
            return f"It is a setting of configs/{name}.json, which is not run here"
    near = difflib.get_close_matches(id_, known, n=1)
    return f"Did you mean --{_shown(near[0])}?" if near else "See docs/README.md of the bundle"


def _mean_what_is_said(parser: ConfigParser | None, known: Mapping[str, Any]) -> None:
    """Put `true`, `false` and `null` in place of these words where the default is no text."""
    words = {"true": True, "false": False, "null": None, "none": None}
    said = {
        id_: words[value.lower()]
        for id_, value in _ids(_config(parser))
        if isinstance(value, str) and value.lower() in words
        if not _is_text(known.get(id_)) and id_.split("::")[0] not in _ADDED_BY_TOOLS
    }
    if parser is None or not said:
        return
    for id_, value in said.items():
        *parents, last = id_.split("::")
        place: Any = parser.config
        for part in parents:
            place = place[int(part) if isinstance(place, list) else part]
        place[int(last) if isinstance(place, list) else last] = value
    # The parser reads its configuration again before the next item.
    parser.ref_resolver.reset()


def _change_both_networks(parser: ConfigParser | None, known: Mapping[str, Any]) -> None:
    """What is changed in `network_def` goes for `peer_def` too, but where the bundle or the caller says otherwise.

    A bundle writes both out. A network that is replaced as a whole is replaced alone.
    """
    if parser is None:
        return
    networks = [*(known.get(name) for name in _NETWORKS), *(_config(parser).get(name) for name in _NETWORKS)]
    if not all(isinstance(network, Mapping) for network in networks):
        return
    own, twin, first, second = (dict(network) for network in networks if isinstance(network, Mapping))
    if first["_target_"] != own["_target_"]:
        return  # another network altogether, for the first alone
    unset = object()
    changed = {
        name: value
        for name, value in first.items()
        if value != own.get(name, unset) and own.get(name, unset) == twin.get(name, unset) == second.get(name, unset)
    }
    if changed:
        place: Any = parser.config
        place["peer_def"] |= changed
        parser.ref_resolver.reset()


def _is_text(default: Any) -> bool:
    return isinstance(default, str) and not default.startswith(("$", "@", "%"))


def _check_kinds(running: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    kinds: list[tuple[Any, Any, str]] = [
        (bool, bool, "true or false"),
        ((int, float), (int, float), "a number"),
        (list, (list, tuple), "a list such as [1, 2, 3]"),
    ]
    for id_, default in known.items():
        value = running.get(id_, default)
        if value is None or (isinstance(value, str) and value.startswith(("$", "@", "%"))):
            continue
        wanted = next(((taken, words) for kind, taken, words in kinds if isinstance(default, kind)), None)
        if wanted and not (isinstance(value, wanted[0]) and isinstance(value, bool) <= isinstance(default, bool)):
            raise InputError(
                f"--{_shown(id_)} wants {wanted[1]}, got {value!r}", fix=f"The default is {default!r}", code="SETTING"
            )


def changed_settings(bundle_root: str | Path, *configs: str) -> dict[str, Any]:
    """Settings of the running configuration that differ from the bundle's files, by id; lists of cases as a count."""
    known = dict(_ids(merged(bundle_root, *configs)))
    changed: dict[str, Any] = {}
    for id_, value in _ids(_config(running_parser())):
        parent, _, last = id_.rpartition("::")
        inside = isinstance(known.get(parent), list) or (parent and parent not in known)
        if id_.startswith("_") or last == "handlers" or isinstance(value, dict) or inside:
            continue
        if _plain(value) != _plain(known.get(id_)):
            cases = isinstance(value, list) and bool(value) and isinstance(value[0], dict)
            changed[_shown(id_)] = f"{len(value)} items" if cases else _plain(value)
    return changed


def carry_over(bundle_root: str | Path, target: str | Path) -> None:
    """Write what training and inference share, as it is run, into `configs/inference.json` of a run's folder.

    Args:
        bundle_root: the bundle that is run; its files stay as they are.
        target: the run's folder, another one.
    """
    from semi_med.files import write_atomically
    from semi_med.recipes.compose import to_json

    inference = merged(bundle_root, "inference")
    write_atomically(Path(target) / "configs" / "inference.json", to_json(inference | _shared_as_run(inference)))


def trained_with(folder: str | Path) -> dict[str, Any]:
    """What the running training shares with inference and `configs/inference.json` of the run's folder has otherwise.

    It lies beside the models of the run, so that a prediction takes it from there: see `use_trained_with`.
    """
    if not (Path(folder) / "configs" / "inference.json").is_file():
        return {}
    inference = merged(folder, "inference")
    return {key: value for key, value in _shared_as_run(inference).items() if value != inference[key]}


def _shared_as_run(inference: Mapping[str, Any]) -> dict[str, Any]:
    from semi_med.inference.trained_with import SHARED

    running = _config(running_parser())
    return {key: _plain(running[key]) for key in SHARED if key in inference and key in running}


def use_trained_with(
    bundle_root: str | Path, weights: str | Path, *configs: str, run: str | Path | None = None
) -> None:
    """Let the running configuration have what the model was trained with, but where the caller says otherwise.

    Args:
        bundle_root: the bundle whose files are run.
        weights: the model.
        configs: names of the files that are run.
        run: the folder of the training, if it is another one.

    Raises:
        InputError: code BUNDLE, what lies beside the model is not what a training writes.
    """
    from semi_med.inference.trained_with import SHARED, read_trained_with

    parser, folder = running_parser(), Path(run or bundle_root)
    if parser is None or not (folder / "configs" / "inference.json").is_file():
        return
    inference, files = merged(folder, "inference"), merged(bundle_root, *configs)
    trained = {key: inference[key] for key in SHARED if key in inference} | read_trained_with(weights, folder)
    place: Any = parser.config
    for key, value in trained.items():
        if key in files and _plain(place.get(key)) == files[key] != value:
            place[key] = value
    # The parser reads its configuration again before the next item.
    parser.ref_resolver.reset()


def running_parser() -> ConfigParser | None:
    """MONAI's parser of the configuration in whose evaluation this is called; None outside of one."""
    from monai.bundle import ConfigParser

    return _up_the_stack(ConfigParser)


def _config(parser: ConfigParser | None) -> dict[str, Any]:
    config: Any = {} if parser is None else parser.config
    return config


def running_folder() -> Path | None:
    """The folder of the configuration files of the running MONAI workflow; None outside of one."""
    from monai.bundle import ConfigWorkflow

    workflow = _up_the_stack(ConfigWorkflow)
    return None if workflow is None else Path(workflow.config_root_path).absolute()


def _up_the_stack(kind: type) -> Any:
    frame = inspect.currentframe()
    while frame is not None:
        if isinstance(found := frame.f_locals.get("self"), kind):
            return found
        frame = frame.f_back
    return None


def config_names(bundle_root: str | Path) -> list[str]:
    """Names of the bundle's configuration files, such as "train"."""
    files = (Path(bundle_root) / "configs").glob("*.json")
    return sorted(path.stem for path in files if path.stem not in ("metadata", "plan"))


def merged(bundle_root: str | Path, *configs: str) -> dict[str, Any]:
    """The bundle's configuration files laid over each other, later ones on top, as MONAI does it.

    Raises:
        InputError: code BUNDLE, a file is missing.
    """
    names = configs or config_names(bundle_root)
    if not names:
        raise InputError("the bundle has no configs/*.json", where=bundle_root, code="BUNDLE")
    config: dict[str, Any] = {}
    for name in names:
        path = Path(bundle_root) / "configs" / f"{name}.json"
        if not path.is_file():
            raise InputError("a configuration of the bundle is missing", where=path, code="BUNDLE")
        for key, value in json.loads(path.read_text(encoding="utf-8")).items():
            place = config
            *parents, last = key.replace("#", "::").split("::")
            for part in parents:
                place = place.setdefault(part, {})
            place[last] = value
    return config


def _ids(value: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    items: Any = ()
    if isinstance(value, Mapping):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, child in items:
        id_ = f"{prefix}::{key}" if prefix else str(key)
        yield id_, child
        yield from _ids(child, id_)


def _arguments(component: Any, parser: ConfigParser | None) -> list[str] | None:
    """Names that a plain section (none but those it has) or a component takes; None if any could be right."""
    from monai.bundle import ConfigComponent

    if not ConfigComponent.is_instantiable(component) or parser is None:
        return []
    name = ConfigComponent({"_target_": component["_target_"]}, locator=parser.locator).resolve_module_name()
    return arguments_of(name)


def arguments_of(target: Any) -> list[str] | None:
    """Names that a class or function takes, given itself or by its import path; None if any could be right."""
    try:
        found: Any = locate(target) if isinstance(target, str) else target
        parameters = inspect.signature(found).parameters.values()
    except (TypeError, ValueError):
        return None
    if any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
        return None
    return [parameter.name for parameter in parameters]


def _plain(value: Any) -> Any:
    """As JSON can hold it; MONAI writes `::` for `#` in references."""
    if isinstance(value, Mapping):
        return {str(key): _plain(child) for key, child in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(child) for child in value]
    if isinstance(value, str):
        return value.replace("::", "#") if value.startswith(("@", "$", "%")) else value
    return value if value is None or isinstance(value, bool | int | float) else str(value)


def _shown(id_: str) -> str:
    return id_.replace("::", "#")
