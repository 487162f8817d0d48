"""RandAugment and CTAugment: which operations an image gets, and how much of each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from semi_med.data.operations import AMOUNTS, Step, draw_axes, geometry, is_geometric, kind, operations, photometric
from semi_med.errors import InputError

Drawn = list[list[Step]]
"""The steps of each image of a batch, in their order."""


class Policy:
    """Draws steps for each image of a batch, and applies them without chance.

    Args:
        number: N, how many operations an image gets; one may come twice.
        only: kinds of operations to choose from, see `semi_med.data.operations.AMOUNTS`; None for the policy's own.
        ranges: smallest and largest amount by kind, in place of the policy's own.
        colors: the channels are red, green and blue.
        geometric: False leaves out what moves things.
        cutout: every image gets a box of grey at the end; its share is uniform between these two. None for no box.

    Raises:
        ValueError: a setting means nothing.
    """

    _only: Sequence[str] = tuple(AMOUNTS)
    _ranges: Mapping[str, tuple[float, float]] = {}

    def __init__(
        self,
        number: int = 2,
        *,
        only: Sequence[str] | None = None,
        ranges: Mapping[str, Sequence[float]] | None = None,
        colors: bool = False,
        geometric: bool = True,
        cutout: Sequence[float] | None = (0.1, 0.3),
    ) -> None:
        if number < 0:
            raise ValueError(f"number is a count of operations of at least 0, not {number}")
        self.only = [name for name in (only or self._only) if geometric or not is_geometric(name)]
        own = {**{name: (a.low, a.high) for name, a in AMOUNTS.items()}, **self._ranges}
        unknown = sorted(set(ranges or {}) - own.keys())
        if unknown:
            raise ValueError(f"ranges names no operation with {', '.join(unknown)}; there are {', '.join(own)}")
        own |= {name: (float(low), float(high)) for name, (low, high) in (ranges or {}).items()}
        self.ranges: dict[str, tuple[float, float]] = own
        self.number, self.colors = number, colors
        self.cutout = None if cutout is None else (float(cutout[0]), float(cutout[1]))
        operations(2, colors=colors, only=self.only)  # refuses names that are not known

    def pool(self, dimensions: int) -> list[str]:
        """The operations there are for such images."""
        return operations(dimensions, colors=self.colors, only=self.only)

    def draw(self, batch_size: int, dimensions: int, generator: torch.Generator) -> Drawn:
        """Draw for a batch, each image its own; the same generator state gives the same draws."""
        return [self._draw_one(dimensions, generator, probe=False) for _ in range(batch_size)]

    def _draw_one(self, dimensions: int, generator: torch.Generator, *, probe: bool) -> list[Step]:
        pool = self.pool(dimensions)
        steps = []
        for _ in range(self.number):
            name = pool[int(torch.randint(0, len(pool), (), generator=generator))]
            amount, place = self._amount(name, generator, probe=probe)
            steps.append(_step(name, amount, dimensions, generator, place))
        if self.cutout is not None:
            low, high = self.cutout
            share = low + (high - low) * float(torch.rand((), generator=generator))
            steps.append(_step("cutout", share, dimensions, generator, -1))
        return steps

    def _amount(self, name: str, generator: torch.Generator, *, probe: bool) -> tuple[float, int]:
        """The amount of an operation and its bin."""
        raise NotImplementedError

    def matrix(self, drawn: Drawn, shape: Sequence[int]) -> Tensor:
        """The geometry of each image, `(B, n + 1, n + 1)`, see `semi_med.ops.affine`.

        Args:
            drawn: as `draw` gives it.
            shape: size of the images in voxels.
        """
        return torch.cat([geometry(steps, shape) for steps in drawn])

    def photometric(self, image: Tensor, drawn: Drawn) -> Tensor:
        """Everything but the geometry, on a batch `(B, C, *spatial)`, each image by its own steps."""
        return torch.cat([photometric(image[b : b + 1], steps) for b, steps in enumerate(drawn)])


def _step(name: str, amount: float, dimensions: int, generator: torch.Generator, place: int) -> Step:
    corner = tuple(torch.rand(dimensions, generator=generator).tolist()) if name == "cutout" else ()
    return Step(name, amount, draw_axes(name, dimensions, generator), corner, place)


class RandAugment(Policy):
    """N operations drawn uniformly, all at one magnitude M.

    Cubuk et al., "RandAugment", NeurIPS 2020, arXiv:1909.13719, with the ranges of Dense FixMatch (arXiv:2210.09919).

    Args:
        number: N.
        magnitude: M, 0 (nothing is changed) to 10 (the ends of the ranges); where both directions are possible one is
            drawn. Autocontrast, equalize and invert have no magnitude.
        random_magnitude: draw each magnitude uniformly in [0, M], as FixMatch does.
        settings: as for `Policy`; the operations are those of the papers.
    """

    _only = tuple(name for name in AMOUNTS if name not in ("smooth", "blur", "rescale", "cutout"))

    def __init__(
        self, number: int = 2, *, magnitude: float = 10.0, random_magnitude: bool = False, **settings: Any
    ) -> None:
        super().__init__(number, **settings)
        if not 0 <= magnitude <= 10:
            raise ValueError(f"magnitude is a number between 0 and 10, not {magnitude}")
        self.magnitude, self.random_magnitude = float(magnitude), random_magnitude

    def _amount(self, name: str, generator: torch.Generator, *, probe: bool) -> tuple[float, int]:
        amounts, (low, high) = AMOUNTS[kind(name)], self.ranges[kind(name)]
        if amounts.full:
            return high, 0
        ends = [end for end in dict.fromkeys((low, high)) if end != amounts.none] or [amounts.none]
        end = ends[int(torch.randint(0, len(ends), (), generator=generator))]
        share = self.magnitude / 10
        if self.random_magnitude:
            share *= float(torch.rand((), generator=generator))
        return amounts.none + share * (end - amounts.none), 0


class CTAugment(Policy):
    """N operations drawn uniformly, the amount of each from bins that learn which ones the network can take.

    Berthelot et al., "ReMixMatch", ICLR 2020, arXiv:1911.09785, section 3.2.2: the range of each operation is divided
    into bins with a rate each, 1 at first. For training a bin is drawn with a probability in proportion to its rate, if
    this is at least `threshold` of the greatest one of its operation. For a probe, on a labelled image, it is drawn
    uniformly, and the bins that were used move towards the agreement of prediction and label:
    rate <- decay * rate + (1 - decay) * agreement.

    Of several processes each learns rates of its own.

    Args:
        number: N.
        bins: how many bins an operation has; an operation without a range has them too.
        decay: share of the old rate that is kept.
        threshold: of a rate beside the greatest one.
        settings: as for `Policy`; the ranges are those of FixMatch.
    """

    _ranges: Mapping[str, tuple[float, float]] = {
        "posterize": (1, 8),
        "rotate": (-45, 45),
        "translate": (-0.3, 0.3),
        "rescale": (1, 2),
        "cutout": (0, 0.25),
    }

    def __init__(
        self, number: int = 2, *, bins: int = 17, decay: float = 0.99, threshold: float = 0.8, **settings: Any
    ) -> None:
        super().__init__(number, **settings)
        if bins < 1 or not 0 <= decay <= 1 or not 0 <= threshold <= 1:
            raise ValueError(
                "bins is at least 1, decay and threshold are shares between 0 and 1, not "
                f"{bins}, {decay} and {threshold}"
            )
        self.bins, self.decay, self.threshold = bins, decay, threshold
        self.rates: dict[str, Tensor] = {
            name: torch.ones(bins, dtype=torch.float64) for name in dict.fromkeys([*self.pool(2), *self.pool(3)])
        }

    def _amount(self, name: str, generator: torch.Generator, *, probe: bool) -> tuple[float, int]:
        weight = torch.ones(self.bins) if probe else self.weights(name)
        place = int(torch.multinomial(weight, 1, generator=generator))
        low, high = self.ranges[kind(name)]
        inside = 0.5 if self.bins == 1 else place / (self.bins - 1)
        return low + inside * (high - low), place

    def weights(self, name: str) -> Tensor:
        """How likely each bin of an operation is drawn for training, up to a factor."""
        relative = self.rates[name] / self.rates[name].max().clamp(min=1e-12)
        return torch.where(relative >= self.threshold, relative, 0.0)

    def draw_probe(self, batch_size: int, dimensions: int, generator: torch.Generator) -> Drawn:
        """Draw for a probe: every bin is equally likely."""
        return [self._draw_one(dimensions, generator, probe=True) for _ in range(batch_size)]

    def used(self, drawn: Drawn) -> Tensor:
        """Which bins the steps of a probe are from: int64 `(B, N, 2)`, place of the operation in `rates`, and bin."""
        names = list(self.rates)
        rows = [[(names.index(step.name), step.bin) for step in steps if step.bin >= 0] for steps in drawn]
        return torch.tensor(rows, dtype=torch.long).view(len(drawn), self.number, 2)

    def learn(self, used: Tensor, agreement: Tensor) -> None:
        """Move the rates of the bins that a probe has used.

        Args:
            used: of each image, as the method of that name gives it.
            agreement: of the prediction with the label, `(B,)`, 0 to 1; one that is not a number teaches nothing.
        """
        rates = list(self.rates.values())
        for steps, value in zip(used.tolist(), agreement.double().tolist(), strict=True):
            for operation, place in steps:
                if value == value:
                    old = float(rates[operation][place])
                    rates[operation][place] = self.decay * old + (1 - self.decay) * value

    def state_dict(self) -> dict[str, Tensor]:
        """The rates."""
        return {name: rates.clone() for name, rates in self.rates.items()}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Go on with rates that were kept.

        Raises:
            InputError: code RESUME_MISMATCH, they are of other operations or bins.
        """
        if {k: v.shape for k, v in state.items()} != {k: v.shape for k, v in self.rates.items()}:
            raise InputError(
                f"rates of {len(state)} operations were kept, this policy has {len(self.rates)} with {self.bins} bins",
                fix="Resume with the settings the run was started with",
                code="RESUME_MISMATCH",
            )
        for name, rates in state.items():
            self.rates[name].copy_(rates)
