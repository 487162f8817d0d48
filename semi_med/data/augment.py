"""Random changes of a batch: drawn first, then applied by a function without chance, on the batch's own device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from semi_med.ops import affine, gaussian_blur, warp


@dataclass(frozen=True)
class Drawn:
    """What was drawn for one batch; entry b belongs to image b.

    `flips`: axes to flip. `turns`: (plane, quarter turns). `matrix`: (B, n, n), output to input coordinates about the
    centre, in voxels. `gain`, `offset`, `log_gamma`, `noise`, `blur`, `elastic`, `sharpness`, `contrast`: numbers for
    each image. `seed`: of the noise and of the elastic displacement. `translate`: (B, n), share of each axis.
    """

    flips: list[list[int]]
    turns: list[tuple[tuple[int, int], int]]
    matrix: Tensor | None
    gain: Tensor
    offset: Tensor
    log_gamma: Tensor
    noise: Tensor
    blur: Tensor
    seed: int
    elastic: Tensor
    sharpness: Tensor
    contrast: Tensor
    translate: Tensor | None = None


@dataclass(kw_only=True)
class Augment:
    """Geometry (flips, quarter turns, rotation, scale, shift, elastic) and intensity (sharpness, contrast, gamma, ...).

    All images of a batch get draws of their own. Geometry is done to every map of the batch alike, about its centre;
    labels are sampled by nearest neighbour. Intensity is in units of the normalised image's standard deviation.

    Args:
        flip_axes: spatial axes that are flipped with probability one half each.
        turn_planes: planes of two axes of equal size; each image is turned by 0 to 3 quarters in one of them.
        rotate: largest rotation in degrees about every axis (about the one axis in 2D); 0 switches it off.
        scale: smallest and largest magnification.
        affine_chance: chance that an image is rotated and scaled.
        translate: largest shift along every axis, as a share of its length; by whole voxels.
        elastic: largest amplitude of an elastic displacement in voxels, before smoothing: uniform noise in [-1, 1] is
            smoothed and multiplied by it (Simard et al., ICDAR 2003); done after rotation and scale.
        elastic_smoothing: standard deviation of the smoothing, in voxels.
        sharpness: largest share of the difference to a slightly blurred image that is added.
        contrast: half-width of the uniform factor about 1 of the differences to the image's mean, channel by channel.
        gain, offset: half-width of the uniform factor about 1 and summand about 0.
        gamma: half-width of the uniform logarithm of the exponent, on the image's own range.
        noise: largest standard deviation of added Gaussian noise.
        blur: largest standard deviation of a Gaussian blur, in voxels.
        chance: chance of each intensity change.
        label_fill: label of what rotation, scale, shift and elastic bring in from outside: the background, or `IGNORED`
            where nobody may say what is there.
    """

    flip_axes: Sequence[int] = ()
    turn_planes: Sequence[tuple[int, int]] = ()
    rotate: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    affine_chance: float = 1.0
    translate: float = 0.0
    elastic: float = 0.0
    elastic_smoothing: float = 6.0
    sharpness: float = 0.0
    contrast: float = 0.0
    gain: float = 0.0
    offset: float = 0.0
    gamma: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    chance: float = 0.5
    label_fill: int = 0
    geometry_keys: Sequence[str] = field(default=("context", "label_context", "monitor_label_context"))

    def draw(self, batch_size: int, dimensions: int, generator: torch.Generator) -> Drawn:
        """Draw for a batch; the same generator state gives the same draws."""

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        def sometimes(limit: float, signed: bool) -> Tensor:
            value = uniform(batch_size) * 2 - 1 if signed else uniform(batch_size)
            return value * limit * (uniform(batch_size) < self.chance)

        coins = uniform(batch_size, max(1, len(self.flip_axes))) < 0.5
        flips = [[a for a, coin in zip(self.flip_axes, row, strict=False) if coin] for row in coins.tolist()]
        quarters = torch.randint(0, 4, (batch_size,), generator=generator).tolist()
        planes = self.turn_planes or [(0, 1)]
        # With one plane nothing is drawn: the draws of such runs do not depend on this choice.
        chosen = [0] * batch_size
        if len(planes) > 1:
            chosen = torch.randint(0, len(planes), (batch_size,), generator=generator).tolist()
        turns = [
            ((planes[p][0], planes[p][1]), q if self.turn_planes else 0) for p, q in zip(chosen, quarters, strict=True)
        ]
        none = torch.zeros(batch_size)
        # What is written last is drawn last, and only if it is wanted: the draws before it stay what they were.
        return Drawn(
            flips=flips,
            turns=turns,
            matrix=self._draw_matrix(batch_size, dimensions, generator),
            gain=1 + sometimes(self.gain, True),
            offset=sometimes(self.offset, True),
            log_gamma=sometimes(self.gamma, True),
            noise=sometimes(self.noise, False),
            blur=sometimes(self.blur, False),
            seed=int(torch.randint(0, 2**62, (), generator=generator)),
            elastic=uniform(batch_size) * self.elastic * (uniform(batch_size) < self.affine_chance)
            if self.elastic
            else none,
            sharpness=sometimes(self.sharpness, False) if self.sharpness else none,
            contrast=1 + sometimes(self.contrast, True) if self.contrast else 1 + none,
            translate=(uniform(batch_size, dimensions) * 2 - 1) * self.translate if self.translate else None,
        )

    def _draw_matrix(self, batch_size: int, dimensions: int, generator: torch.Generator) -> Tensor | None:
        if self.rotate == 0 and tuple(self.scale) == (1.0, 1.0):
            return None
        planes = [(0, 1)] if dimensions == 2 else [(0, 1), (0, 2), (1, 2)]
        angles = (torch.rand(batch_size, len(planes), generator=generator) * 2 - 1) * torch.pi * self.rotate / 180
        low, high = self.scale
        scales = low + (high - low) * torch.rand(batch_size, generator=generator)
        used = torch.rand(batch_size, generator=generator) < self.affine_chance
        matrices = []
        for row, scale, use in zip(angles, scales, used, strict=True):
            matrix = torch.eye(dimensions)
            for (i, j), angle in zip(planes, row, strict=True):
                turn = torch.eye(dimensions)
                turn[i, i] = turn[j, j] = torch.cos(angle)
                turn[i, j], turn[j, i] = -torch.sin(angle), torch.sin(angle)
                matrix = turn @ matrix
            matrices.append(matrix / scale if bool(use) else torch.eye(dimensions))
        return torch.stack(matrices)

    def apply(self, batch: dict[str, Any], drawn: Drawn) -> dict[str, Any]:
        """The changed batch; `batch` is left as it was. Images come out as float32."""
        out = self.geometry(batch, drawn)
        out["context"] = self.intensity(out["context"], drawn)
        return out

    def geometry(self, batch: dict[str, Any], drawn: Drawn) -> dict[str, Any]:
        """Only where things are: every map of the batch and its margins are moved alike."""
        out = dict(batch)
        for key in self.geometry_keys:
            if key in batch:
                out[key] = self._geometry(batch[key], drawn, nearest=key != "context")
        if "margin" in batch:
            out["margin"] = _turned_margin(batch["margin"], drawn)
        out["context"] = out["context"].float()
        return out

    def _geometry(self, maps: Tensor, drawn: Drawn, *, nearest: bool) -> Tensor:
        changed = []
        for image, flips, (plane, quarters) in zip(maps, drawn.flips, drawn.turns, strict=True):
            if flips:
                image = image.flip([a + 1 for a in flips])
            if quarters:
                if image.shape[plane[0] + 1] != image.shape[plane[1] + 1]:
                    raise ValueError(f"plane {plane} of size {tuple(image.shape[1:])} cannot be turned by a quarter")
                image = image.rot90(quarters, [plane[0] + 1, plane[1] + 1])
            changed.append(image)
        out = torch.stack(changed)
        displacement = self._displacement(out, drawn) if bool((drawn.elastic > 0).any()) else None
        if drawn.matrix is None and drawn.translate is None and displacement is None:
            return out
        matrix = _resampling(drawn, out.shape[2:])
        return warp(out, matrix, nearest=nearest, displacement=displacement, fill=self.label_fill if nearest else 0)

    def matrix(self, drawn: Drawn, shape: Sequence[int]) -> Tensor:
        """All of the geometry as one matrix of `semi_med.ops.affine`, `(B, n + 1, n + 1)`, so that it can be undone.

        Args:
            drawn: of maps of size `shape`.
            shape: in voxels; it must be kept, so quarter turns want equal axes.

        Raises:
            ValueError: there is an elastic displacement, which is no matrix.
        """
        if bool((drawn.elastic > 0).any()):
            raise ValueError("an elastic displacement cannot be undone by a matrix; set elastic to 0")
        axes = torch.tensor([[axis in flips for axis in range(len(shape))] for flips in drawn.flips])
        turns = [affine.quarter_turn(torch.tensor([quarters]), plane, shape) for plane, quarters in drawn.turns]
        return affine.compose(affine.flip(axes, shape), torch.cat(turns), _resampling(drawn, shape))

    def _displacement(self, maps: Tensor, drawn: Drawn) -> Tensor:
        """Of each voxel, `(B, n, *spatial)`; the same for every map of a batch."""
        generator = torch.Generator(maps.device).manual_seed(drawn.seed)
        shape = (len(maps), maps.dim() - 2, *maps.shape[2:])
        noise = torch.rand(shape, generator=generator, device=maps.device) * 2 - 1
        smooth = gaussian_blur(noise, torch.full((len(maps),), self.elastic_smoothing), padding="constant")
        return smooth * drawn.elastic.to(maps.device).view(-1, *[1] * (maps.dim() - 1))

    def intensity(self, image: Tensor, drawn: Drawn) -> Tensor:
        """Only how bright things are: an image batch `(B, C, *spatial)`."""
        shape = (-1, *([1] * (image.dim() - 1)))

        def numbers(values: Tensor) -> Tensor:
            return values.to(image.device, image.dtype).view(shape)

        if bool((drawn.sharpness > 0).any()):
            image = image + numbers(drawn.sharpness) * (image - gaussian_blur(image, torch.ones(len(image))))
        if bool((drawn.contrast != 1).any()):
            mean = image.mean(tuple(range(2, image.dim())), keepdim=True)
            image = mean + numbers(drawn.contrast) * (image - mean)
        if bool((drawn.blur > 0).any()):
            image = gaussian_blur(image, drawn.blur)
        if bool((drawn.log_gamma != 0).any()):
            axes = tuple(range(1, image.dim()))
            low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
            span = (high - low).clamp(min=1e-6)
            image = ((image - low) / span).clamp(min=1e-7).pow(numbers(drawn.log_gamma.exp())) * span + low
        image = image * numbers(drawn.gain) + numbers(drawn.offset)
        if bool((drawn.noise > 0).any()):
            generator = torch.Generator(image.device).manual_seed(drawn.seed)
            image = image + numbers(drawn.noise) * torch.randn(
                image.shape, generator=generator, device=image.device, dtype=image.dtype
            )
        return image


def _resampling(drawn: Drawn, shape: Sequence[int]) -> Tensor:
    """Rotation and scale about the centre, then the shift."""
    size = len(drawn.flips)
    matrix = affine.identity(size, len(shape)) if drawn.matrix is None else affine.about_centre(drawn.matrix, shape)
    if drawn.translate is None:
        return matrix
    return affine.compose(matrix, affine.translation((drawn.translate * torch.tensor(list(shape))).round()))


def _turned_margin(margin: Tensor, drawn: Drawn) -> Tensor:
    """The free margin after flips and quarter turns, which swap sides and axes."""
    rows = []
    for row, flips, (plane, quarters) in zip(margin, drawn.flips, drawn.turns, strict=True):
        row = row.clone()
        for axis in flips:
            row[axis] = row[axis].flip(0)
        for _ in range(quarters):
            # rot90 from axis a to axis b: the new axis a runs along the old b reversed, the new b along the old a.
            a, b = plane
            row[a], row[b] = row[b].flip(0).clone(), row[a].clone()
        rows.append(row)
    return torch.stack(rows)


class Strong(Protocol):
    """What makes a strong view of a weak one, without moving anything: drawn first, then applied without chance."""

    def draw(self, batch_size: int, dimensions: int, generator: torch.Generator) -> Any:
        """Draw for a batch."""
        ...

    def apply(self, image: Tensor, drawn: Any) -> Tensor:
        """The changed images `(B, C, *spatial)`."""
        ...


class View:
    """From a raw batch of crops with margins to what a method sees.

    Args:
        crop_size: voxels of the crop.
        augment: the random changes; None for none.
        intensity_on: "context" changes intensities before the crop is cut out, so that all crops of a context look
            alike; "image" leaves the context as it is and changes only `image`: a weak view for the teacher, a
            strong one for the student.
        strong: what else is done to `image`, such as `semi_med.data.color_jitter.ColorJitter`; wants "image".
        strong_views: with 2 there is `strong_2` besides, made as `image` is, with draws of its own; wants "image".

    Gives `image` `(B, C, *crop)`, the middle of the changed context, `weak`, the same crop without the changes that
    "image" keeps from the context, and `label`, `monitor_label` likewise where there are such; `context` and `margin`
    are kept for shifted crops.
    """

    def __init__(
        self,
        crop_size: Sequence[int],
        augment: Augment | None = None,
        *,
        intensity_on: Literal["context", "image"] = "context",
        strong: Strong | None = None,
        strong_views: int = 1,
    ) -> None:
        if intensity_on not in ("context", "image"):
            raise ValueError(f"intensity_on must be 'context' or 'image', not {intensity_on!r}")
        if strong_views not in (1, 2):
            raise ValueError(f"strong_views must be 1 or 2, not {strong_views}")
        if intensity_on == "context" and (strong is not None or strong_views > 1):
            raise ValueError("intensity_on must be 'image' where strong views differ from the weak one")
        self.crop_size, self.augment, self.intensity_on = tuple(crop_size), augment or Augment(), intensity_on
        self.strong, self.strong_views = strong, strong_views

    def __call__(self, batch: dict[str, Any], generator: torch.Generator) -> dict[str, Tensor]:
        """The view of a batch; `generator` (CPU) decides all draws."""
        batch = {key: value for key, value in batch.items() if isinstance(value, Tensor)}
        if not batch:
            return batch
        context = batch["context"]
        drawn = self.augment.draw(len(context), context.dim() - 2, generator)
        moved = self.augment.geometry(batch, drawn)
        if self.intensity_on == "context":
            moved["context"] = self.augment.intensity(moved["context"], drawn)
            weak = image = self._middle(moved["context"])
        else:
            weak = self._middle(moved["context"])
            image = self._strong(weak, drawn, generator)
        view = {"context": moved["context"], "margin": moved["margin"], "weak": weak, "image": image}
        if self.strong_views == 2:
            again = self.augment.draw(len(context), context.dim() - 2, generator)
            view["strong_2"] = self._strong(weak, again, generator)
        for key in ("label", "monitor_label"):
            if f"{key}_context" in moved:
                view[key] = self._middle(moved[f"{key}_context"])
        return view

    def _strong(self, weak: Tensor, drawn: Drawn, generator: torch.Generator) -> Tensor:
        image = self.augment.intensity(weak, drawn)
        if self.strong is None:
            return image
        return self.strong.apply(image, self.strong.draw(len(image), image.dim() - 2, generator))

    def _middle(self, maps: Tensor) -> Tensor:
        window = tuple(
            slice((m - c) // 2, (m - c) // 2 + c) for m, c in zip(maps.shape[2:], self.crop_size, strict=True)
        )
        return maps[(slice(None), slice(None), *window)]
