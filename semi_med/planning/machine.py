"""What the machine has: a device, and memory that a training may take."""

from __future__ import annotations

import difflib
import os
from dataclasses import dataclass
from pathlib import Path

from semi_med.errors import InputError, ResourceError

_GIB = 2**30
_SPARED = 0.85  # of what is free, for the training; the rest is for everybody else
_CGROUPS = (
    ("/sys/fs/cgroup", "memory.max", "memory.current"),
    ("/sys/fs/cgroup/memory", "memory.limit_in_bytes", "memory.usage_in_bytes"),
)


@dataclass(frozen=True)
class Machine:
    """Where a plan is for.

    Attributes:
        device: as torch names it.
        memory_gb: that a training may take: of the GPU, or of the computer.
        words: both, for people.
    """

    device: str
    memory_gb: float
    words: str

    @property
    def kind(self) -> str:
        """`cpu`, or `cuda` for whatever is no CPU."""
        return "cpu" if self.device.startswith("cpu") else "cuda"


def look_at_machine(device: str | None, memory_gb: float | None) -> Machine:
    """The device that is meant, CUDA if there is one, and the memory at hand.

    Raises:
        InputError: code DEVICE, there is no such device; code SETTING, the memory is no positive number.
        ResourceError: code DEVICE, it cannot be used here.
    """
    from semi_med.inference.bundle import resolve_device

    if memory_gb is not None and memory_gb <= 0:
        raise InputError(f"a number of GB above 0 is wanted, not {memory_gb:g}", where="--memory-gb", code="SETTING")
    try:
        found = str(resolve_device(device))
    except (InputError, ResourceError) as error:
        near = difflib.get_close_matches(str(device), ["cpu", "cuda", "cuda:0", "mps"], n=1)
        if near and near[0] != device and isinstance(error, InputError):
            error.fix = f"Did you mean {near[0]}?"
            error.args = (f"{error.problem}. {error.fix}",)
        raise
    if found.startswith("cuda"):
        import torch

        free, _ = torch.cuda.mem_get_info(found)
        name = torch.cuda.get_device_name(found)
    else:
        free, name = free_memory(), f"CPU, {os.cpu_count()} cores"
    wanted = memory_gb or _SPARED * free / _GIB
    source = "as given" if memory_gb else f"{_SPARED:.0%} of what is free"
    return Machine(found, round(wanted, 2), f"{name}; {wanted:.1f} GB of memory ({source})")


def free_memory() -> int:
    """Bytes that a process may take, by the system and by the limits of its container."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    info = Path("/proc/meminfo")
    if info.is_file():
        lines = [line.split() for line in info.read_text(encoding="ascii").splitlines()]
        free = next((int(parts[1]) * 1024 for parts in lines if parts[0] == "MemAvailable:"), free)
    for folder, limit, used in _CGROUPS:
        try:
            taken = int(Path(folder, used).read_text()) - _of_files(Path(folder, "memory.stat"))
            free = min(free, int(Path(folder, limit).read_text()) - taken)
        except (OSError, ValueError):  # no such group, or no limit
            continue
    return max(free, 0)


def _of_files(stat: Path) -> int:
    """Bytes of files that are kept in memory only until it is needed."""
    rows = [line.split() for line in stat.read_text().splitlines()]
    return sum(int(row[1]) for row in rows if row[0] in ("inactive_file", "active_file"))
