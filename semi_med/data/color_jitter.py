"""The strong view of UniMatch: other brightness, contrast and colours, sometimes none, sometimes blurred."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from semi_med.ops import gaussian_blur

_GREY = (0.299, 0.587, 0.114)  # ITU-R 601, of red, green and blue


@dataclass(frozen=True)
class DrawnColors:
    """What was drawn for one batch; row b belongs to image b.

    `amounts`: factors of brightness, contrast and saturation, and the shift of the hue, `(B, 4)`. `order`: in which
    they are done, `(B, 4)`. `jittered`, `grey`: whether, bool `(B,)`. `sigma`: of the blur in voxels, 0 for none.
    """

    amounts: Tensor
    order: Tensor
    jittered: Tensor
    grey: Tensor
    sigma: Tensor


@dataclass(kw_only=True)
class ColorJitter:
    """Brightness, contrast, saturation and hue in random order, then grey, then blur; each image draws its own.

    What UniMatch does to a picture of bytes (Yang et al., CVPR 2023, arXiv:2208.09910; torchvision's `ColorJitter` and
    `RandomGrayscale`), on images that were normalised before. They are put on a scale from 0 to 1, changed, cut off at
    its ends after every change, and put back. The scale is that of the picture's bytes if `mean` and `sd` say what the
    normalisation took off and divided by; else the image's own range: from its least to its greatest value, of all
    three colours together, or of each channel where channels are no colours.

    Where the channels are no colours (one channel of CT, MR or ultrasound; several contrasts of MR; volumes), there is
    no saturation, no hue and no grey: brightness, contrast and blur remain, contrast about each channel's own mean.

    Args:
        colors: the channels are red, green and blue.
        brightness, contrast, saturation: half-width of the uniform factor about 1.
        hue: half-width of the uniform shift about 0, in turns of the circle of colours.
        chance: that an image is changed in these four.
        grey_chance: that it loses its colours.
        blur: smallest and largest standard deviation of the Gaussian blur, in voxels.
        blur_chance: that it is blurred.
        mean, sd: by channel, what normalisation took off and divided by, in the unit of `full`.
        full: value of the brightest pixel a picture can have, 255 for bytes; black is 0.

    Raises:
        ValueError: only one of `mean` and `sd` is given.
    """

    colors: bool = False
    brightness: float = 0.5
    contrast: float = 0.5
    saturation: float = 0.5
    hue: float = 0.25
    chance: float = 0.8
    grey_chance: float = 0.2
    blur: Sequence[float] = (0.1, 2.0)
    blur_chance: float = 0.5
    mean: Sequence[float] | None = None
    sd: Sequence[float] | None = None
    full: float = 255.0

    def __post_init__(self) -> None:
        """Refuse half a scale."""
        if (self.mean is None) != (self.sd is None):
            raise ValueError("mean and sd say together what normalisation did: give both or none")

    def draw(self, batch_size: int, dimensions: int, generator: torch.Generator) -> DrawnColors:
        """Draw for a batch; the same generator state gives the same draws."""
        widths = torch.tensor([self.brightness, self.contrast, self.saturation, self.hue])
        centres = torch.tensor([1.0, 1.0, 1.0, 0.0])

        def uniform(*shape: int) -> Tensor:
            return torch.rand(*shape, generator=generator)

        low, high = self.blur
        amounts = centres + widths * (2 * uniform(batch_size, 4) - 1)
        order = uniform(batch_size, 4).argsort(1)
        jittered, grey = uniform(batch_size) < self.chance, uniform(batch_size) < self.grey_chance
        sigma = (low + (high - low) * uniform(batch_size)) * (uniform(batch_size) < self.blur_chance)
        return DrawnColors(amounts, order, jittered, grey, sigma)

    def apply(self, image: Tensor, drawn: DrawnColors) -> Tensor:
        """The changed images `(B, C, *spatial)`; `image` is left as it was.

        Raises:
            ValueError: `colors` of images without three channels.
        """
        if self.colors and image.shape[1] != 3:
            raise ValueError(f"colors are red, green and blue, the image has {image.shape[1]} channels")
        low, span = self._scale(image)
        out = image.clone()
        for b in range(len(image)):
            if drawn.jittered[b] or (drawn.grey[b] and self.colors):
                unit = (image[b] - low[b]) / span[b]
                out[b] = self._changed(unit, b, drawn) * span[b] + low[b]
        if bool((drawn.sigma > 0).any()):
            blurred = gaussian_blur(out, drawn.sigma)
            out = torch.where((drawn.sigma > 0).to(out.device).view(-1, *[1] * (out.dim() - 1)), blurred, out)
        return out

    def _scale(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """What 0 is and how far 1 lies above it, `(B, C or 1, 1, ...)`."""
        if self.mean is not None and self.sd is not None:
            shape = (1, -1, *[1] * (image.dim() - 2))
            mean, sd = (torch.tensor(list(values), device=image.device).view(shape) for values in (self.mean, self.sd))
            return (-mean / sd).expand(len(image), *shape[1:]), (self.full / sd).expand(len(image), *shape[1:])
        axes = tuple(range(1 if self.colors else 2, image.dim()))
        low, high = image.amin(axes, keepdim=True), image.amax(axes, keepdim=True)
        return low, (high - low).clamp(min=1e-6)

    def _changed(self, unit: Tensor, b: int, drawn: DrawnColors) -> Tensor:
        """One image `(C, *spatial)` on the scale from 0 to 1."""
        changes: list[Callable[[Tensor, float], Tensor]] = [_brightness, self._contrast, _saturation, _hue]
        if drawn.jittered[b]:
            for place in drawn.order[b].tolist():
                if place < 2 or self.colors:
                    unit = changes[place](unit, float(drawn.amounts[b, place])).clamp(0, 1)
        return _grey(unit).expand_as(unit) if drawn.grey[b] and self.colors else unit

    def _contrast(self, unit: Tensor, factor: float) -> Tensor:
        mean = _grey(unit).mean() if self.colors else unit.mean(tuple(range(1, unit.dim())), keepdim=True)
        return mean + factor * (unit - mean)


def _brightness(unit: Tensor, factor: float) -> Tensor:
    return unit * factor


def _saturation(unit: Tensor, factor: float) -> Tensor:
    grey = _grey(unit)
    return grey + factor * (unit - grey)


def _grey(unit: Tensor) -> Tensor:
    """`(1, *spatial)` of red, green and blue."""
    return sum(share * channel for share, channel in zip(_GREY, unit, strict=True))[None]


def _hue(unit: Tensor, shift: float) -> Tensor:
    """Colours turned on their circle by a share of it; value and saturation of the HSV cone stay."""
    red, green, blue = unit
    value, least = unit.amax(0), unit.amin(0)
    chroma = value - least
    safe = chroma.clamp(min=1e-12)
    place = torch.where(
        value == red,
        ((green - blue) / safe) % 6,
        torch.where(value == green, (blue - red) / safe + 2, (red - green) / safe + 4),
    )
    place = torch.where(chroma > 0, place, torch.zeros_like(place)) + 6 * shift
    # of the circle's six parts: how far each colour is above the least one
    parts = torch.stack([(place + offset) % 6 for offset in (5, 3, 1)])
    return value - chroma * torch.minimum(parts, 4 - parts).clamp(0, 1)
