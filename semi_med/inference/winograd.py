"""3x3x3 convolutions with half of the multiplications, for a CPU in float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

# polynomials through 0, 1, -1, 2, -2 and infinity
_OF_INPUT = (
    (4, 0, -5, 0, 1, 0),
    (0, -4, -4, 1, 1, 0),
    (0, 4, -4, -1, 1, 0),
    (0, -2, -1, 2, 1, 0),
    (0, 2, -1, -2, 1, 0),
    (0, 4, 0, -5, 0, 1),
)
_OF_WEIGHT = ((6, 0, 0), (-4, -4, -4), (-4, 4, -4), (1, 2, 4), (1, -2, 4), (0, 0, 24))  # in 24ths
_READ, _MADE = 6, 4  # planes at a time
_WITH_BIAS = 1  # what is added to this product comes out in all four planes
_AT_ONCE = 2**24  # bytes of products
_CHANNELS = 16  # with fewer the sums cost what is saved
_WORTH = 0.7  # of the multiplications, at most


class Winograd(nn.Module):
    """A convolution, with the ReLU that follows it, by F(4, 3) along the first axis.

    Four planes of the result are sums of six convolved planes, where twelve are convolved otherwise. Lavin and Gray,
    CVPR 2016, arXiv:1509.09308. Rounding is that of float32 some times over: 1e-5 of the largest value.

    Differs from the paper: along one axis only. Along two, the sums take the time that the products save.

    Args:
        convolution: one that `suits`.
        relu: follows it.
    """

    def __init__(self, convolution: nn.Conv3d, *, relu: bool) -> None:
        super().__init__()
        self.relu = relu
        self.channels = convolution.out_channels
        self.bias = convolution.bias
        of_weight = torch.tensor(_OF_WEIGHT, dtype=torch.float64) / 24
        weights = torch.einsum("ri,ocijk->rocjk", of_weight, convolution.weight.detach().double())
        self.weights = list(weights.float().contiguous())
        self.of_input = torch.tensor(_OF_INPUT, dtype=torch.float32)
        self._packed: dict[tuple[int, ...], list[Tensor]] = {}

    @staticmethod
    def suits(convolution: nn.Conv3d) -> bool:
        """Whether it is 3x3x3, keeps the size, and has channels enough."""
        return (
            (convolution.kernel_size, convolution.stride, convolution.dilation) == ((3, 3, 3), (1, 1, 1), (1, 1, 1))
            and (convolution.padding, convolution.groups, convolution.padding_mode) == ((1, 1, 1), 1, "zeros")
            and min(convolution.in_channels, convolution.out_channels) >= _CHANNELS
        )

    @staticmethod
    def pays(planes: int) -> bool:
        """Whether so many planes are made of clearly fewer products."""
        return _READ * -(-planes // _MADE) <= _WORTH * 3 * planes

    def forward(self, image: Tensor) -> Tensor:
        """(B, C, i, j, k) to (B, channels, i, j, k), channels last."""
        length = image.shape[2]
        made = image.new_empty((len(image), -(-length // _MADE), _MADE, *image.shape[3:], self.channels))
        for one, result in zip(image.movedim(1, -1), made, strict=True):
            self._convolve(one.contiguous(), result)
        return made.flatten(1, 2)[:, :length].movedim(-1, 1)

    def _convolve(self, image: Tensor, result: Tensor) -> None:
        """(i, j, k, C) into (tiles, 4, j, k, channels), a few tiles after the other, so that they lie in the cache."""
        tiles = len(result)
        groups = -(-tiles * _READ * image[0].numel() * image.element_size() // _AT_ONCE)
        at_once = -(-tiles // groups)
        packed = self._packed_for(at_once, image.shape[1:])
        sums = image.new_empty((_READ, at_once, *image.shape[1:]))
        for first in range(0, tiles, at_once):
            count = min(at_once, tiles - first)
            for tile in range(count):
                read = _planes(image, _MADE * (first + tile) - 1)
                torch.mm(self.of_input, read.flatten(1), out=sums[:, tile].flatten(1))
            biases = [self.bias if number == _WITH_BIAS else None for number in range(_READ)]
            products = [_convolve_planes(*one) for one in zip(sums[:, :count], packed, biases, strict=True)]
            found = result[first : first + count]
            _sum_up(products, found)
            if self.relu:
                found.relu_()

    def _packed_for(self, at_once: int, size: Sequence[int]) -> list[Tensor]:
        """Weights in the order that oneDNN wants for so many planes (j, k, C)."""
        shape = (at_once, size[2], *size[:2])
        if shape not in self._packed:
            order: Any = torch._C._nn.mkldnn_reorder_conv2d_weight
            plain = [one.contiguous(memory_format=torch.channels_last).to_mkldnn() for one in self.weights]
            self._packed[shape] = [order(one, [1, 1], [1, 1], [1, 1], 1, list(shape)) for one in plain]
        return self._packed[shape]


def _planes(image: Tensor, start: int) -> Tensor:
    """The planes that four of the result are made of, zeros where there are none."""
    stop = start + _READ
    if start >= 0 and stop <= len(image):
        return image[start:stop]
    found = image.new_zeros((_READ, *image.shape[1:]))
    first, last = max(start, 0), min(stop, len(image))
    found[first - start : last - start] = image[first:last]
    return found


def _convolve_planes(planes: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """(planes, j, k, C) to (planes, j, k, channels)."""
    convolve = torch.ops.mkldnn._convolution_pointwise
    result: Tensor = convolve(planes.movedim(-1, 1), weight, bias, [1, 1], [1, 1], [1, 1], 1, "none", [], "")
    return result.movedim(1, -1)


def _sum_up(products: Sequence[Tensor], result: Tensor) -> None:
    """Six products (tiles, j, k, channels) into (tiles, 4, j, k, channels): the transposed matrix, written out.

    1  1  1  1  1  0
    0  1 -1  2 -2  0
    0  1  1  4  4  0
    0  1 -1  8 -8  1
    """
    first, one, minus_one, two, minus_two, last = products
    odd, odd_2 = one - minus_one, two - minus_two
    even, even_2 = one.add_(minus_one), two.add_(minus_two)
    torch.add(first, even, out=result[:, 0]).add_(even_2)
    torch.add(odd, odd_2, alpha=2, out=result[:, 1])
    torch.add(even, even_2, alpha=4, out=result[:, 2])
    torch.add(odd, odd_2, alpha=8, out=result[:, 3]).add_(last)
