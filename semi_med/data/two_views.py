"""Two views of one image that differ in where things are, and the matrices that lead from one to the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from semi_med.data.augment import Augment
from semi_med.data.policies import CTAugment, Policy
from semi_med.ignored import IGNORED
from semi_med.ops import affine, warp

_SECOND = {"context": "context_2", "margin": "margin_2", "scan": "scan_2", "offset": "offset"}


class TwoViews:
    """From a raw batch of crops with margins to a weak and a strong view, each with geometry of its own.

    Both are resampled once, out of the context; where a view looks beyond the scan its image is 0 (the mean intensity).
    The strong view is made of the second crop where the batch has one (see `CropBatches`).

    Gives `weak` and `image` (the strong view) `(B, C, *crop)`; `weak_matrix` and `strong_matrix`, float64
    `(B, n + 1, n + 1)` on the CPU, from the voxels of each view to those of `context` (see `semi_med.ops.affine`);
    `seen` and `strong_seen`, bool `(B, 1, *crop)`: voxels of each view that the scan has; `label` and `monitor_label`,
    where there are such, in the frame of the weak view. `context` and `margin` are as they came.

    With `probe` also `probe` and `probe_label`: a view by that policy of the image of a labelled case, and its label.
    If the policy learns, its bins are drawn uniformly and named in `probe_used`; `learn` takes the agreement found.

    Args:
        crop_size: voxels of the crop.
        weak: geometry of the weak view (its intensity settings too, where it has some).
        strong: operations of the strong view; None makes `image` the weak view.
        strong_placing: geometry of the strong view before the operations, such as flips and a shift; None for none.
        probe: for labelled batches, the policy of a further view, with labels; None for none.
        label_fill: label of what the weak view invents: `IGNORED`, as nobody knows it, or a class.

    Raises:
        ValueError: a geometry cannot be undone by a matrix.
    """

    def __init__(
        self,
        crop_size: Sequence[int],
        weak: Augment | None = None,
        strong: Policy | None = None,
        *,
        strong_placing: Augment | None = None,
        probe: Policy | None = None,
        label_fill: int = IGNORED,
    ) -> None:
        self.crop_size, self.label_fill = tuple(crop_size), label_fill
        self.weak, self.strong, self.strong_placing = weak or Augment(), strong, strong_placing or Augment()
        self.probe = probe
        self._learning = next((policy for policy in (probe, strong) if isinstance(policy, CTAugment)), None)
        for name, augment in (("weak", self.weak), ("strong_placing", self.strong_placing)):
            if augment.elastic > 0:
                raise ValueError(f"{name} has an elastic displacement, which cannot be undone by a matrix; set it to 0")

    def __call__(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """The views of a batch; `generator` (CPU) decides all draws."""
        batch = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
        if not batch:
            return batch
        context = batch["context"]
        drawn = self.weak.draw(len(context), context.dim() - 2, generator)
        weak_matrix = self._cut(self.weak.matrix(drawn, context.shape[2:]), context)
        weak = self.weak.intensity(self._take(context, weak_matrix), drawn)
        view = {"context": context, "margin": batch["margin"], "weak": weak, "weak_matrix": weak_matrix}
        view["seen"] = self._seen(batch, weak_matrix)
        for key in ("label", "monitor_label"):
            if f"{key}_context" in batch:
                view[key] = self._take(batch[f"{key}_context"], weak_matrix, nearest=True)
        if self.strong is None:
            view |= {"image": weak, "strong_matrix": weak_matrix, "strong_seen": view["seen"]}
        else:
            second = _second_of(batch)
            view["image"], matrix = self._strongly(second["context"], self.strong, generator)
            view["strong_seen"] = self._seen(second, matrix)
            moved = "offset" in second
            view["strong_matrix"] = affine.compose(affine.crop(second["offset"]), matrix) if moved else matrix
        return view if self.probe is None else view | self._probe(batch, self.probe, generator)

    def _strongly(self, context: Tensor, policy: Policy, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """The strong view and its matrix, to the context that it is made of."""
        placed = self.strong_placing.draw(len(context), context.dim() - 2, generator)
        steps = policy.draw(len(context), context.dim() - 2, generator)
        first = self._cut(self.strong_placing.matrix(placed, context.shape[2:]), context)
        matrix = affine.compose(first, policy.matrix(steps, self.crop_size))
        return policy.photometric(self._take(context, matrix), steps), matrix

    def _probe(self, batch: Mapping[str, Tensor], policy: Policy, generator: torch.Generator) -> dict[str, Tensor]:
        context = batch["context"]
        draw = policy.draw_probe if isinstance(policy, CTAugment) else policy.draw
        steps = draw(len(context), context.dim() - 2, generator)
        whole = affine.identity(len(context), context.dim() - 2)
        matrix = affine.compose(self._cut(whole, context), policy.matrix(steps, self.crop_size))
        label = warp(batch["label_context"], matrix, nearest=True, fill=IGNORED, output_shape=self.crop_size)
        found = {"probe": policy.photometric(self._take(context, matrix), steps), "probe_label": label}
        return {**found, "probe_used": policy.used(steps)} if isinstance(policy, CTAugment) else found

    def _cut(self, matrix: Tensor, context: Tensor) -> Tensor:
        """That of the middle of what the matrix gives."""
        start = [(size - crop) // 2 for size, crop in zip(context.shape[2:], self.crop_size, strict=True)]
        return affine.compose(matrix, affine.crop(torch.tensor([start]).expand(len(context), -1)))

    def _take(self, maps: Tensor, matrix: Tensor, *, nearest: bool = False) -> Tensor:
        fill = self.label_fill if nearest else 0
        return warp(maps, matrix, nearest=nearest, fill=fill, output_shape=self.crop_size)

    def _seen(self, batch: Mapping[str, Tensor], matrix: Tensor) -> Tensor:
        """Voxels that the scan has. A batch that does not say where has the crop and the free margin around it."""
        context, scan = batch["context"], batch.get("scan")
        if scan is None:
            scan = self._crop_and_margin(context, batch["margin"])
        known = torch.zeros(len(context), 1, *context.shape[2:], dtype=torch.bool, device=context.device)
        for here, ends in zip(known, scan.tolist(), strict=True):
            here[(slice(None), *(slice(first, last) for first, last in ends))] = True
        return warp(known, matrix, nearest=True, fill=False, output_shape=self.crop_size)

    def _crop_and_margin(self, context: Tensor, margin: Tensor) -> Tensor:
        start = torch.tensor([(size - crop) // 2 for size, crop in zip(context.shape[2:], self.crop_size, strict=True)])
        return torch.stack([start - margin[..., 0], start + torch.tensor(self.crop_size) + margin[..., 1]], dim=-1)

    def learn(self, used: Tensor, agreement: Tensor) -> None:
        """Hand the agreement on a probe, `(B,)`, to the policy that drew it."""
        if self._learning is not None:
            self._learning.learn(used, agreement)

    def state_dict(self) -> dict[str, Any]:
        """What the policy has learnt."""
        return {} if self._learning is None else self._learning.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with what the policy had learnt."""
        if self._learning is not None:
            self._learning.load_state_dict(state)


def _second_of(batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """What the strong view is made of: the second crop, with its `offset`, or the only one."""
    if "context_2" not in batch:
        return batch
    return {name: batch[key] for name, key in _SECOND.items() if key in batch}
