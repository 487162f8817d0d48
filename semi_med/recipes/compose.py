"""Bundles from parts: common/, tasks/<task>/ and methods/<method>/ become bundles/<method>_<task>/."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from semi_med import __version__
from semi_med.errors import InputError
from semi_med.ignored import IGNORED

HERE = Path(__file__).parent
CONFIGS = ("train", "inference", "evaluate", "multi_gpu_train")
_NOT_FOR_PEOPLE = (
    *("imports", "initialize", "training", "run", "bundle_root", "classes", "rank", "world_size"),
    *("sections", "epoch_length", "total_iterations", "unlabeled_data", "needs_unlabeled"),
    *("network", "peer", "discriminator", "strong"),
    "trained_with",
)
_LAST = ("train", "validate", "initialize", "training", "evaluating", "run", "finalize")
_SHARES_OF_CE = ("alpha", "alpha_unsupervised")  # settings of methods; the rest is Dice
TASK_OF_A_BUNDLE = Path("configs", "task")  # where a bundle of a person's own data keeps the parts of its task


@dataclass(frozen=True)
class Task:
    """The parts of a task: `about.json`, `shared.json`, `train.json`, `inference.json`.

    Attributes:
        name: of a recipe, or what `task` in its `about.json` says.
        folder: where they lie.
        recipe: whether they are this package's own.
    """

    name: str
    folder: Path
    recipe: bool = True

    @property
    def about(self) -> dict[str, Any]:
        """What is known of its data."""
        return _part(self.folder, "about")

    @property
    def flat(self) -> bool:
        """Whether the network sees pictures and slices instead of volumes."""
        return bool(self.about.get("dimensions", 3) == 2)

    def own(self, method: str) -> Path:
        """Where the parts lie that a method has for this task alone."""
        return HERE / "methods" / method / self.name if self.recipe else self.folder / method


TaskLike: TypeAlias = "str | Path | Task"


def methods() -> list[str]:
    """Names of the methods that have a recipe."""
    return sorted(path.name for path in (HERE / "methods").iterdir() if (path / "about.json").is_file())


def about_method(method: str) -> dict[str, Any]:
    """What a recipe says: `name`, `networks`, `unlabeled`, `discriminators`, and `before` if a run comes first."""
    return _part(HERE / "methods" / method, "about")


def tasks() -> list[str]:
    """Names of the tasks that have a recipe."""
    return sorted(path.name for path in (HERE / "tasks").iterdir() if (path / "about.json").is_file())


def about_over(method: str) -> dict[str, Any]:
    """What a method says of its training over any task."""
    return _part(HERE / "methods" / method / "over", "train")


def find_task(task: TaskLike) -> Task:
    """The task of that name, of a folder of parts, or of a bundle that keeps them.

    Raises:
        InputError: code SETTING, there is none.
    """
    if isinstance(task, Task):
        return task
    if isinstance(task, str) and task in tasks():
        return Task(task, HERE / "tasks" / task)
    for folder in (Path(task), Path(task) / TASK_OF_A_BUNDLE):
        if name := _part(folder, "about").get("task"):
            return Task(name, folder.absolute(), recipe=False)
    fix = f"Choose one of {', '.join(tasks())}"
    if Path(task).is_dir():
        fix += f", or a bundle that semi-med init has written: it has {TASK_OF_A_BUNDLE}/about.json"
    raise InputError(f"there is no task {str(task)!r}", fix=fix, code="SETTING")


def compose(method: str, task: TaskLike, target: str | Path) -> Path:
    """Write the bundle of a method for a task.

    Later parts win: common, the unlabelled side if the method has one, the second optimizer if it has discriminators,
    slices if the task has two dimensions, the strong view of UniMatch if the method wants it, then the method's, the
    task's (with its unlabelled side), what the method has over any task (`over`), and what it has for this task alone,
    each as `<name>.json` with `shared.json` for what training and inference must agree on. Weights, checkpoints and
    logs that lie in `target` are left alone.

    Args:
        method: a name of `methods()`.
        task: a name of `tasks()`, or the folder of a task's parts or of a bundle that has them.
        target: the bundle's folder, `bundles/<method>_<task>` by convention.

    Returns:
        The folder.

    Raises:
        InputError: there is no such method or task.
    """
    if method not in methods():
        raise InputError(f"there is no method {method!r}", fix=f"Choose one of {', '.join(methods())}", code="SETTING")
    task = find_task(task)
    target, bundle = Path(target), f"{method}_{task.name}"
    (target / "configs").mkdir(parents=True, exist_ok=True)
    (target / "docs").mkdir(exist_ok=True)
    files = {f"configs/{name}.json": compose_config(name, method=method, task=task) for name in CONFIGS}
    files["configs/metadata.json"] = compose_metadata(method=method, task=task)
    for name, content in files.items():
        text = to_json(content).replace("{bundle}", bundle).replace("{task}", task.name)
        (target / name).write_text(text, encoding="utf-8")
    shutil.copyfile(HERE / "common" / "logging.conf", target / "configs" / "logging.conf")
    shutil.copyfile(HERE / "common" / "LICENSE", target / "LICENSE")
    (target / "docs" / "README.md").write_text(compose_readme(method=method, task=task), encoding="utf-8")
    if task.recipe:
        _write_lists(task.name, target / "data_lists")
    else:
        _keep_task(task, target)
    return target


def _keep_task(task: Task, target: Path) -> None:
    """Let the bundle have its task's parts and, if these are a bundle's, its data lists."""
    if (target / TASK_OF_A_BUNDLE).resolve() == task.folder.resolve():
        return
    shutil.copytree(task.folder, target / TASK_OF_A_BUNDLE, dirs_exist_ok=True)
    lists = task.folder.parents[1] / "data_lists"
    if task.folder.parts[-2:] == TASK_OF_A_BUNDLE.parts and lists.is_dir():
        shutil.copytree(lists, target / "data_lists", dirs_exist_ok=True)


def to_json(content: Any) -> str:
    """Indented JSON in which a list of plain values stays on one line."""
    text = json.dumps(content, indent=2, ensure_ascii=False)
    plain = re.compile(r"\[\s+((?:[^\[\]{}\"]|\"[^\"\n]*\")*?)\s+\]")
    while True:
        shorter = plain.sub(lambda found: "[" + re.sub(r"\s*\n\s*", " ", found.group(1)) + "]", text)
        if shorter == text:
            return text + "\n"
        text = shorter


def compose_config(name: str, *, method: str, task: TaskLike) -> dict[str, Any]:
    """One configuration (`train`, `inference`, `evaluate` or `multi_gpu_train`) of a method for a task."""
    task = find_task(task)
    rooms = _rooms(method, task)
    config: dict[str, Any] = {}
    if name in ("train", "inference"):
        for room in rooms:
            config = merge(config, _part(room, "shared"))
    for room in rooms:
        config = merge(config, _part(room, name))
    if task.flat and "unlabeled_strong" in config:
        _know_colors(config, task)
    values, ignored = task.about.get("label_values"), task.about.get("ignored", IGNORED)
    if values or ignored != IGNORED:
        _map_values(config, values or list(range(len(task.about["labels"]))), ignored)
    if task.about.get("count_class_0") and name == "train":
        _count_class_0(config)
    return _in_order({key: _expand(value, config) for key, value in config.items()})


def _rooms(method: str, task: Task) -> list[Path]:
    """Where parts are looked for; later ones win."""
    about, here = about_method(method), HERE / "methods" / method
    learns = bool(about.get("unlabeled"))
    common, own = ([folder, folder / "unlabeled"][: 1 + learns] for folder in (HERE / "common", task.folder))
    slices = [HERE / "common" / "slices"] if task.flat else []
    strong = [HERE / "common" / "strong"] if about.get("strong") else []
    rivals = [HERE / "common" / "adversarial"] if about.get("discriminators") else []
    return [*common, *rivals, *slices, *strong, here, *own, here / "over", task.own(method)]


def _count_class_0(config: dict[str, Any]) -> None:
    """Let class 0 be a class like the others: in losses (Dice leaves it out), metrics, and not outside of a picture."""
    config["method"] = {**config["method"], **{key: 1.0 for key in _SHARES_OF_CE if key in config["method"]}}
    config["validate"]["key_metric"]["mean_dice"]["include_background"] = True
    for handler in config["train"]["handlers"]:
        if handler["_target_"] == "semi_med.engines.Validate":
            handler["first_class"] = 0
    for side in ("labeled", "unlabeled"):
        if f"{side}_batches" in config["train"]:
            config["train"][f"{side}_batches"]["label_fill"] = IGNORED
        config[f"{side}_augment"]["label_fill"] = IGNORED


def _know_colors(config: dict[str, Any], task: Task) -> None:
    """Let the strong view know whether channels are colours, and the scale of the pictures where it is fixed."""
    colors = list(task.about["channels"].values()) == ["red", "green", "blue"]
    scale = {"mean": "@intensity_mean", "sd": "@intensity_sd"}
    config["unlabeled_strong"] = {**config["unlabeled_strong"], "colors": colors, **scale}


def _map_values(config: dict[str, Any], values: Sequence[int], ignored: int) -> None:
    """Let labels be read, and masks be written, with the numbers that the label files have for class 0, 1, ...

    What they have where nothing is known becomes `IGNORED`, which stays as it is.
    """
    indices = list(range(len(values)))
    read = (list(values), indices) if ignored == IGNORED else ([*values, ignored], [*indices, IGNORED])
    for section, there in (("preprocessing", config.get("train", {})), ("postprocessing", config)):
        if section not in there:
            continue
        transforms = list(there[section]["transforms"])
        kinds = [transform["_target_"] for transform in transforms]
        if section == "preprocessing":
            numbers = {"orig_labels": read[0], "target_labels": read[1]}
            own = {"_target_": "MapLabelValued", "keys": ["label", "monitor_label"], **numbers}
            place = max(i for i, kind in enumerate(kinds) if kind == "LoadImaged") + 1
            transforms.insert(place, {**own, "allow_missing_keys": True})
        else:
            place = next((i for i, kind in enumerate(kinds) if "Save" in kind), len(kinds))
            config["label_values"] = list(values)
            own = {"_target_": "MapLabelValued", "keys": "pred", "orig_labels": indices}
            transforms.insert(place, {**own, "target_labels": "@label_values"})
            if max(values) > 255:
                transforms = [
                    {**each, "output_dtype": "$torch.uint16"} if each.get("output_dtype") else each
                    for each in transforms
                ]
        there[section] = {**there[section], "transforms": transforms}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`over` laid on `base`: dictionaries are merged key by key, anything else is replaced.

    A dictionary with `"_replace_": true` takes the place of the one below it as a whole.
    """
    if over.get("_replace_"):
        return {key: value for key, value in over.items() if key != "_replace_"}
    merged = dict(base)
    for key, value in over.items():
        old = merged.get(key)
        merged[key] = merge(old if isinstance(old, Mapping) else {}, value) if isinstance(value, Mapping) else value
    return merged


def common_part(name: str) -> dict[str, Any]:
    """What all bundles have of a configuration."""
    return _part(HERE / "common", name)


def _part(room: Path, name: str) -> dict[str, Any]:
    path = room / f"{name}.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def _expand(value: Any, config: Mapping[str, Any]) -> Any:
    """`{"_like_": "x", ...}` becomes a copy of x with the other keys changed."""
    if isinstance(value, Mapping) and "_like_" in value:
        return merge(config[value["_like_"]], {k: v for k, v in value.items() if k != "_like_"})
    return value


def _in_order(config: Mapping[str, Any]) -> dict[str, Any]:
    """Imports, then the settings a person changes, then components, then the work."""

    def rank(key: str) -> int:
        value = config[key]
        if key == "imports":
            return 0
        if key.split("#")[0] in _LAST:
            return 3 + _LAST.index(key.split("#")[0])
        return 2 if isinstance(value, dict) or (isinstance(value, str) and ".to(@device)" in value) else 1

    return {key: config[key] for key in sorted(config, key=rank)}


def compose_metadata(*, method: str, task: TaskLike) -> dict[str, Any]:
    """`metadata.json` after MONAI's schema."""
    task = find_task(task)
    about_task, about = task.about, about_method(method)
    crop = compose_config("inference", method=method, task=task)["crop_size"]
    labels = about_task["labels"]
    return {
        "schema": "https://github.com/Project-MONAI/MONAI-extra-test-data/releases/download/0.8.1/"
        "meta_schema_20240725.json",
        "version": __version__,
        "changelog": {__version__: "first version"},
        "bundle": f"{method}_{task.name}",
        "monai_version": "1.6.1",
        "pytorch_version": "2.13.0",
        "numpy_version": "2.4.6",
        "required_packages_version": {
            "semi-med": __version__,
            "pytorch-ignite": "0.5.5",
            "nibabel": "5.4.2",
            "SimpleITK": "2.5.7",
            "tensorboard": "2.21.0",
        },
        "name": f"{about_task['title']}: {about['name']}",
        "task": f"{about_task['title']}, semi-supervised segmentation",
        "description": f"{about['name']} on few labelled and many unlabelled scans. {about_task['title']}.",
        "authors": "semi_med developers",
        "copyright": "Copyright (c) semi_med developers",
        "data_source": about_task["data_source"],
        "data_type": about_task.get("data_type", "nifti"),
        "image_classes": f"{_counted(len(about_task['channels']), 'channel')} of intensities with mean 0 and SD 1",
        "label_classes": ", ".join(f"{value} {name}" for value, name in labels.items()),
        "pred_classes": f"{len(labels)} channels, one probability for each class",
        "eval_metrics": {},
        "intended_use": "Research. Not a medical device; look at every result before anything depends on it.",
        "references": [about["reference"], about_task["data_reference"]],
        "network_data_format": {
            "inputs": {
                "image": {
                    "type": "image",
                    "format": "magnitude",
                    "modality": about_task["modality"],
                    "num_channels": len(about_task["channels"]),
                    "spatial_shape": crop,
                    "dtype": "float32",
                    "value_range": [-5, 20],
                    "is_patch_data": True,
                    "channel_def": about_task["channels"],
                }
            },
            "outputs": {
                "pred": {
                    "type": "image",
                    "format": "segmentation",
                    "num_channels": len(labels),
                    "spatial_shape": crop,
                    "dtype": "float32",
                    "value_range": [0, 1],
                    "is_patch_data": True,
                    "channel_def": labels,
                }
            },
        },
    }


def compose_readme(*, method: str, task: TaskLike) -> str:
    """`docs/README.md` of a bundle."""
    from jinja2 import Environment, StrictUndefined

    task = find_task(task)

    template = (HERE / "common" / "README.md.j2").read_text(encoding="utf-8")
    environment = Environment(undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True, autoescape=False)
    config = compose_config("train", method=method, task=task)
    settings = {
        key: _shown(value, method=method, task=task.name)
        for key, value in config.items()
        if key not in _NOT_FOR_PEOPLE and not isinstance(value, dict)
    }
    own = {k: _shown(v, method=method, task=task.name) for k, v in config["method"].items() if not k.startswith("_")}
    notes = HERE / "methods" / method / f"{task.name}.md"
    return environment.from_string(template).render(
        bundle=f"{method}_{task.name}",
        task_name=task.name if task.recipe else ".",
        method=about_method(method),
        task=task.about,
        flat=task.flat,
        config=config,
        settings=settings,
        own=own,
        results=notes.read_text(encoding="utf-8")
        if task.recipe and notes.is_file()
        else "No figure has been measured yet.\n",
        version=__version__,
    )


def _counted(number: int, thing: str) -> str:
    return f"one {thing}" if number == 1 else f"{number} {thing}s"


def _shown(value: Any, *, method: str, task: str) -> str:
    """A default as it would be written on the command line."""
    text = value if isinstance(value, str) else json.dumps(value)
    return text.replace("{bundle}", f"{method}_{task}").replace("{task}", task)


def _write_lists(task: str, folder: Path) -> None:
    """The published lists of the task's data set, where it has some."""
    from semi_med.datasets import brats2019, la, pancreas_ct
    from semi_med.datasets.lists import write_all

    known = {
        "la": la.build_lists,
        "pancreas": lambda: pancreas_ct.build_lists("A"),
        "pancreasb": lambda: pancreas_ct.build_lists("B"),
        "brats": lambda: brats2019.build_lists("flair"),
        "bratsregions": lambda: brats2019.build_lists("regions"),
    }
    if task in known:
        write_all(known[task](), folder)
