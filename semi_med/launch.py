"""Training as a process of its own: the command line of MONAI's bundles, run and waited for."""

from __future__ import annotations

import shlex
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from semi_med.errors import InputError


def parse_setting(text: str) -> tuple[str, str]:
    """Name and value of `name=value`.

    Raises:
        InputError: code SETTING.
    """
    name, equals, value = text.partition("=")
    if not equals or not name.strip("-").strip():
        raise InputError(
            f"a setting is written NAME=VALUE, got {text!r}", fix="For example max_iterations=500.", code="SETTING"
        )
    return name.strip().lstrip("-"), value


def training_command(bundle: str | Path, *, settings: Mapping[str, Any]) -> list[str]:
    """The command that trains a bundle.

    Args:
        bundle: its folder.
        settings: overrides by name; paths are made absolute, so that the process may run anywhere.

    Raises:
        InputError: there is no configs/train.json.
    """
    config = Path(bundle) / "configs" / "train.json"
    if not config.is_file():
        raise InputError(
            "this file of the bundle is missing",
            where=config,
            fix="Name the folder of a bundle; semi-med compose writes one.",
            code="BUNDLE",
        )
    command = [sys.executable, "-m", "monai.bundle", "run", "training", "--config_file", str(config.absolute())]
    for name, value in settings.items():
        command += [f"--{name}", str(value.absolute() if isinstance(value, Path) else value)]
    return command


def shown(command: Sequence[str]) -> str:
    """The command as one would type it."""
    return shlex.join(["python", *command[1:]])


def run(command: Sequence[str], *, log: IO[bytes] | None = None, keep: Sequence[int] = ()) -> int:
    """Run a command to its end; its exit code, 128 + n if signal n ended it.

    Ctrl-C reaches the process from the terminal, and SIGTERM is passed on; in both cases it is waited for, as a
    training then writes a checkpoint.

    Args:
        command: with its arguments.
        log: an open file for all that it says; None for the terminal.
        keep: descriptors that it gets too, such as a locked file, which then stays locked as long as it lives.
    """
    process = subprocess.Popen(
        command, stdout=log, stderr=None if log is None else subprocess.STDOUT, pass_fds=tuple(keep)
    )

    def pass_on(number: int, frame: object) -> None:
        process.send_signal(number)

    old = {
        signal.SIGINT: signal.signal(signal.SIGINT, lambda number, frame: None),
        signal.SIGTERM: signal.signal(signal.SIGTERM, pass_on),
    }
    try:
        code = process.wait()
    finally:
        for number, handler in old.items():
            signal.signal(number, handler)
    return code if code >= 0 else 128 - code
