"""What a method is: a dataclass of networks and numbers with one verb."""

from __future__ import annotations

from dataclasses import dataclass, fields

from torch import Tensor, nn

Batch = dict[str, Tensor]
"""Tensors of one batch. Labeled: `image` (B, C, *crop), `label` (B, 1, *crop). Unlabeled: `image` (the fixed crop as
the student sees it), `weak` (as the teacher does), `context` (the weak crop with a margin around it) and `margin`
(B, n, 2), the free voxels on each side; with monitoring also `monitor_label`, never used in a loss."""


@dataclass(kw_only=True, eq=False)
class Method:
    """Base of all methods: subclasses add their networks and numbers as fields and write `losses`.

    A method never sees a device, an optimizer, a scaler, a logger, a path or an engine.
    """

    def losses(self, labeled: Batch, unlabeled: Batch, iteration: int) -> dict[str, Tensor]:
        """Scalars of one iteration: `"loss"` is minimised, the rest are curves.

        Args:
            labeled: `image` (B, C, *crop) and `label` (B, 1, *crop).
            unlabeled: `image`, `weak`, `context` and `margin`.
            iteration: 0-based count of updates done, for ramps.
        """
        raise NotImplementedError

    def after_update(self, iteration: int) -> None:
        """Called after each optimizer step; an averaged teacher moves here."""

    def networks(self) -> dict[str, nn.Module]:
        """The networks among the fields by name, in order; the first is the one that is deployed."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, nn.Module)}
