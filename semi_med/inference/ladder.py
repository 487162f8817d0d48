"""Where a prediction is computed, and what is tried next when memory runs out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch

from semi_med.inference.members import Members

T = TypeVar("T")


@dataclass(frozen=True)
class Rung:
    """One way to compute.

    Attributes:
        at_once: windows that go through the networks at a time.
        stitch: device of the sums over windows.
        network: device of the networks.
    """

    at_once: int
    stitch: torch.device
    network: torch.device

    def __str__(self) -> str:
        windows = "one window" if self.at_once == 1 else f"{self.at_once} windows"
        return f"{windows} at a time, networks on {self.network}, stitched on {self.stitch}"


def rungs(device: torch.device, at_once: int) -> list[Rung]:
    """The ways in the order in which they are tried: fewer windows, stitching on the CPU, everything on the CPU."""
    cpu = torch.device("cpu")
    ways = [Rung(at_once, device, device), Rung(1, device, device), Rung(1, cpu, device), Rung(1, cpu, cpu)]
    return list(dict.fromkeys(ways))


def is_out_of_memory(error: Exception) -> bool:
    """Whether memory of a device or of the machine ran out; torch has no type of its own for the latter."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "DefaultCPUAllocator: " in str(error)


class Ladder:
    """Goes down the rungs, and back up when the image is done.

    Args:
        rungs: at least one.
        members: the networks; they are where the first rung wants them.
        say: called with a sentence at each step.
    """

    def __init__(self, rungs: Sequence[Rung], members: Members, *, say: Callable[[str], None] | None = None) -> None:
        self._rungs = list(rungs)
        self._step = 0
        self._say = say
        self._reduced = members.reduced
        self.members = members

    @property
    def rung(self) -> Rung:
        """The one that is stood on."""
        return self._rungs[self._step]

    def attempt(self, action: Callable[[], T]) -> T:
        """Does something, again one rung lower each time that memory runs out.

        Raises:
            MemoryError, torch.OutOfMemoryError: from the lowest rung.
        """
        while True:
            try:
                return action()
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self._step + 1 == len(self._rungs):
                    raise
            self._down()  # outside of the handler, where the error's frames would keep memory alive

    def close(self) -> None:
        """Brings the networks back, and lets the device have what is cached."""
        if self._step:
            self._place(self._rungs[0])
            self._step = 0

    def _down(self) -> None:
        self._step += 1
        if self._say is not None:
            self._say(f"FALLBACK: memory ran out; {self.rung}")
        self._place(self.rung)

    def _place(self, rung: Rung) -> None:
        first = self._rungs[0].network
        self.members.to(rung.network)
        # autocast's type is chosen for a kind of device
        self.members.reduced = self._reduced if rung.network.type == first.type else None
        if first.type == "cuda":
            torch.cuda.empty_cache()
