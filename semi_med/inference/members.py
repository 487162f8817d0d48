"""What one or several networks say about windows: mean probabilities, and how much the members disagree."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import KW_ONLY, dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from semi_med.errors import InputError


@dataclass
class Members:
    """Networks whose softmax probabilities are averaged.

    Attributes:
        networks: each maps (B, C, *window) to logits (B, classes, *window).
        reduced: precision that the networks run in by autocast; None for their own.
        flips: each network sees every window in all mirror images of it (8 in 3D, 4 in 2D) as well, and what it says
            is mirrored back.
        entropy: one more channel gives the mean over members of the entropy, in nats.
        args: passed on to the networks.
        kwargs: passed on to the networks.
    """

    networks: Sequence[Callable[..., Any]]
    _: KW_ONLY
    reduced: torch.dtype | None = None
    flips: bool = False
    entropy: bool = False
    args: Sequence[Any] = ()
    kwargs: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.networks:
            raise InputError("at least one network is wanted, none came", where="inferer", code="SETTING")

    def __call__(self, windows: Tensor) -> Tensor:
        """(B, classes, *window) of (B, C, *window), or one channel more with the entropy; float32."""
        total: Tensor | None = None
        count = 0
        for axes in self._flips(windows.ndim - 2):
            seen = windows.flip(axes) if axes else windows
            for network in self.networks:
                probs = self._probs(network, seen)
                if self.entropy:
                    probs = torch.cat([probs, entropy(probs)], dim=1)
                probs = probs.flip(axes) if axes else probs
                total = probs if total is None else total.add_(probs)
                count += 1
        assert total is not None
        return total if count == 1 else total.div_(count)

    def to(self, device: torch.device) -> None:
        """Moves the networks."""
        for network in self.networks:
            if isinstance(network, nn.Module):
                network.to(device)

    def _flips(self, axes: int) -> list[tuple[int, ...]]:
        if not self.flips:
            return [()]
        found = range(2, 2 + axes)
        return [chosen for count in range(axes + 1) for chosen in itertools.combinations(found, count)]

    def _probs(self, network: Callable[..., Any], windows: Tensor) -> Tensor:
        with torch.autocast(windows.device.type, dtype=self.reduced, enabled=self.reduced is not None):
            logits = network(windows, *self.args, **self.kwargs)
        if not isinstance(logits, Tensor):
            raise TypeError(f"a network must return its logits as one tensor here, not {type(logits).__name__}")
        if logits.shape[1] < 2:
            raise ValueError("two channels or more are wanted (background and classes), one came: its softmax is 1")
        return torch.softmax(logits.float(), dim=1)


def entropy(probs: Tensor, *, dim: int = 1) -> Tensor:
    """Of probabilities (B, classes, *spatial), in nats; (B, 1, *spatial)."""
    return -torch.xlogy(probs, probs).sum(dim, keepdim=True)
