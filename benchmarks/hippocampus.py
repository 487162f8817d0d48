"""Did the unlabelled scans help? Supervised only, co-training and all labels on MSD Task04 (hippocampus MR).

    python benchmarks/hippocampus.py <data> <output> [--seeds 1 2 3] [--labeled 4] [--iterations 1000] [--jobs 2]

<data> holds images/, labels/ and cases.csv (columns id, subject_group). Subjects are split once: 25 for the test, 10
for validation (curves only, nothing is chosen on them), the rest for training; for each seed, `--labeled` of the
training subjects keep their labels. The three arms take the same iterations, augmentation and order of labelled
images; the models of the last iteration are tested. Every run is a plain bundle run whose folder stays in <output>,
and a finished one is not run again.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import random
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from semi_med.data.data_list import Case, DataList, save_data_list
from semi_med.recipes.compose import compose

ARMS = {"supervised": "supervised", "cotrain": "cotrain", "all": "supervised"}
TEST, VALIDATION, SPLIT_SEED = 25, 10, 0


def split(data: Path, *, labeled: int, seed: int) -> dict[str, DataList]:
    """The data lists of a seed, by arm."""
    with (data / "cases.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    subjects = sorted({int(row["subject_group"]) for row in rows})
    random.Random(SPLIT_SEED).shuffle(subjects)
    test, validation, train = subjects[:TEST], subjects[TEST : TEST + VALIDATION], subjects[TEST + VALIDATION :]
    random.Random(seed).shuffle(train)

    def cases(chosen: list[int], *, label: bool = True) -> list[Case]:
        entries = []
        for row in rows:
            if int(row["subject_group"]) in chosen:
                files = {"image": f"images/{row['id']}.nii.gz"}
                if label:
                    files["label"] = f"labels/{row['id']}.nii.gz"
                entries.append(Case(**files, case=row["id"], subject=f"subject-{row['subject_group']}"))
        return entries

    def data_list(with_label: list[int], without: list[int]) -> DataList:
        return DataList(
            name="hippocampus",
            description=f"{len(with_label)} labelled subjects, seed {seed}; subjects split with seed {SPLIT_SEED}",
            reference="Antonelli et al., Nature Communications 13:4128, 2022",
            licence="CC BY-SA 4.0",
            modality={"0": "MR"},
            labels={"0": "background", "1": "anterior", "2": "posterior"},
            labeled=cases(with_label),
            unlabeled=cases(without, label=False),
            validation=cases(validation),
            test=cases(test),
        )

    few = data_list(train[:labeled], train[labeled:])
    return {"supervised": few, "cotrain": few, "all": data_list(train, [])}


def run(arm: str, data: Path, output: Path, *, labeled: int, seed: int, iterations: int, overrides: list[str]) -> Path:
    """Train one arm with one seed and segment the test subjects; returns the folder of the masks."""
    folder = output / f"{arm}_seed{seed}"
    masks = folder / "predictions"
    if (masks / "run.json").is_file():
        return masks
    bundle = compose(ARMS[arm], "hippocampus", output / "bundles" / ARMS[arm])
    data_list = split(data, labeled=labeled, seed=seed)[arm]
    list_file = output / "lists" / f"{arm}_seed{seed}.json"
    save_data_list(data_list, list_file)
    command = [
        *(sys.executable, "-m", "monai.bundle", "run", "training"),
        *("--config_file", str(bundle / "configs" / "train.json"), "--bundle_root", str(bundle)),
        *("--dataset_dir", str(data), "--data_list_file", str(list_file), "--output_dir", str(folder)),
        *("--max_iterations", str(iterations), "--seed", str(seed), *(f"--{item}" for item in overrides)),
    ]
    if (folder / "checkpoints").is_dir():
        command += ["--resume", "true"]
    log = output / f"{arm}_seed{seed}.log"
    with log.open("a") as file:
        subprocess.run(command, stdout=file, stderr=file, check=True)
    from semi_med.inference import predict

    inputs = [data / case.files[0] for case in data_list.test]
    rows = predict(folder, inputs, masks, device="cpu")
    if any(row["status"] != "done" for row in rows):
        raise SystemExit(f"{folder}: not every test scan was segmented")
    return masks


def main() -> None:
    """Run what is missing, then write results.json and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3])
    parser.add_argument("--labeled", type=int, default=4)
    parser.add_argument("--iterations", type=int, default=1000)
    parser.add_argument("--jobs", type=int, default=max(1, os.cpu_count() or 1))
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--override", nargs="*", default=[], help="more settings for every run: name=value ...")
    arguments = parser.parse_args()
    data, output = arguments.data.resolve(), arguments.output.resolve()
    output.mkdir(parents=True, exist_ok=True)
    if arguments.jobs > 1:
        os.environ.setdefault("OMP_NUM_THREADS", "1")

    jobs = [(arm, seed) for seed in arguments.seeds for arm in arguments.arms]
    jobs.sort(key=lambda job: job[0] != "cotrain")  # the long ones first
    settings = {"labeled": arguments.labeled, "iterations": arguments.iterations, "overrides": arguments.override}
    with ThreadPoolExecutor(arguments.jobs) as pool:
        masks = dict(zip(jobs, pool.map(lambda job: run(job[0], data, output, seed=job[1], **settings), jobs)))  # noqa: B905
    report(masks, data, output, arguments)


def report(masks: dict[tuple[str, int], Path], data: Path, output: Path, arguments: argparse.Namespace) -> None:
    """Means, intervals, and the share of the gap to all labels that co-training closes."""
    import tempfile

    from semi_med.metrics import bootstrap_interval, case_means, evaluate, paired_difference

    rows: dict[str, list[dict]] = {}
    by_seed: dict[str, dict[int, float]] = {}
    for (arm, seed), folder in masks.items():
        names = {path.name.removesuffix("_seg.nii.gz") for path in folder.glob("*_seg.nii.gz")}
        with tempfile.TemporaryDirectory() as chosen:
            for name in names:
                (Path(chosen) / f"{name}.nii.gz").symlink_to(data / "labels" / f"{name}.nii.gz")
            found = evaluate(folder, Path(chosen), output=output / f"{arm}_seed{seed}.csv")
        means = case_means(found.rows)
        by_seed.setdefault(arm, {})[seed] = sum(means.values()) / len(means)
        rows.setdefault(arm, []).extend({**row, "case": f"{row['case']}@{seed}"} for row in found.rows)
    result: dict[str, object] = {
        "settings": {k: v for k, v in vars(arguments).items() if k not in ("data", "output")},
        "arms": {},
    }
    for arm, found_rows in rows.items():
        values = list(case_means(found_rows).values())
        interval = bootstrap_interval(values)
        mean = sum(values) / len(values)
        result["arms"][arm] = {"dice": mean, "low": interval.low, "high": interval.high, "by_seed": by_seed[arm]}  # type: ignore[index]
        print(f"{arm:12s} Dice {mean:.4f}  [{interval.low:.4f}, {interval.high:.4f}]  by seed {by_seed[arm]}")
    if {"supervised", "cotrain", "all"} <= rows.keys():
        gain = paired_difference(rows["cotrain"], rows["supervised"])
        gap = paired_difference(rows["all"], rows["supervised"])
        share = gain.mean / gap.mean if gap.mean else float("nan")
        result |= {"gain": [gain.mean, gain.low, gain.high], "gap": [gap.mean, gap.low, gap.high], "closed": share}
        print(f"co-training - supervised {gain.mean:+.4f} [{gain.low:+.4f}, {gain.high:+.4f}]")
        print(f"co-training wins on {gain.wins} of {gain.n}")
        print(f"all labels - supervised {gap.mean:+.4f} [{gap.low:+.4f}, {gap.high:+.4f}]; gap closed: {share:.0%}")
    (output / "results.json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
