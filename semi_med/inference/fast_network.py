"""The same 3D network, made fast for prediction on a CPU: same logits to rounding, less work and fewer copies."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.fusion import fuse_conv_bn_eval

from semi_med.inference.winograd import Winograd

_NORMS = (nn.modules.batchnorm._NormBase, nn.GroupNorm, nn.LayerNorm)  # that are left are computed in float32
_TRIED = 32  # voxels along each axis of what the two networks are compared on
_TOLERANCE = 1e-4  # of probabilities, in float32
_TOLERANCE_REDUCED = 0.1


def prepared(network: nn.Module, *, window: Sequence[int], channels: int, reduced: bool = False) -> nn.Module | None:
    """A copy for inference: batch norm folded into convolutions, channels side by side in memory, weights packed.

    Yu et al.'s V-Net takes half of the time so on a CPU whose memory is the limit. The copy is compared with the
    network before it is returned, since a network may use its layers in any way.

    Args:
        network: in evaluation mode, on the CPU.
        window: voxels that it will see; -1 for the whole of an axis.
        channels: of the image.
        reduced: weights and activations in bfloat16.

    Returns:
        The copy, whose logits are float32; None where there is nothing to gain, or it would not say the same.
    """
    if len(window) != 3 or not any(isinstance(one, nn.Conv3d) for one in network.modules()):
        return None
    made = copy.deepcopy(network).requires_grad_(False)
    with torch.no_grad():
        _fold_norms(made)
        _replace_pointwise(made)
        if not (reduced and _has_norms(made)):  # autocast does not know packed convolutions
            _pack(made, reduced=reduced)
        fast = _Fast(made, reduced=reduced)
        return fast if _say_the_same(network, fast, window, channels, reduced=reduced) else None


class _Fast(nn.Module):
    """Channels last, and bfloat16 on request.

    Where norms are left, autocast chooses the type of each layer; else the weights are bfloat16, and nothing is cast.
    """

    def __init__(self, network: nn.Module, *, reduced: bool) -> None:
        super().__init__()
        self.autocast = reduced and _has_norms(network)
        self.dtype = torch.bfloat16 if reduced and not self.autocast else torch.float32
        self.network = network.to(dtype=self.dtype)
        for weight in network.parameters():
            if weight.ndim == 5:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last_3d)

    def forward(self, image: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=self.autocast):
            logits = self.network(image.to(dtype=self.dtype).contiguous(memory_format=torch.channels_last_3d))
        return logits.float() if isinstance(logits, Tensor) else logits


class _Pointwise(nn.Module):
    """A convolution of one voxel as the matrix product that it is."""

    def __init__(self, convolution: nn.Conv3d) -> None:
        super().__init__()
        self.weight = nn.Parameter(convolution.weight.flatten(1), requires_grad=False)
        self.bias = convolution.bias

    def forward(self, image: Tensor) -> Tensor:
        return functional.linear(image.movedim(1, -1), self.weight, self.bias).movedim(-1, 1)


class _Packed(nn.Module):
    """A convolution, with the ReLU that follows it, whose weights oneDNN need not bring into order at each call.

    Args:
        convolution: with zeros for padding.
        relu: follows it.
        winograd: where that is faster.
    """

    def __init__(self, convolution: nn.Conv3d, *, relu: bool, winograd: bool) -> None:
        super().__init__()
        self.weight, self.bias = convolution.weight, convolution.bias
        self.settings: tuple[Any, ...] = (
            *(list(convolution.padding), list(convolution.stride), list(convolution.dilation)),
            convolution.groups,
        )
        self.then = "relu" if relu else "none"
        self._packed: dict[tuple[int, ...], Tensor] = {}
        self.winograd = Winograd(convolution, relu=relu) if winograd and Winograd.suits(convolution) else None

    def forward(self, image: Tensor) -> Tensor:
        if self.winograd is not None and self.winograd.pays(image.shape[2]):
            return self.winograd(image)
        shape = tuple(image.shape)
        if shape not in self._packed:
            order: Any = torch._C._nn.mkldnn_reorder_conv3d_weight
            self._packed[shape] = order(self.weight.detach().to_mkldnn(), *self.settings, list(shape))
        convolve = torch.ops.mkldnn._convolution_pointwise
        result: Tensor = convolve(image, self._packed[shape], self.bias, *self.settings, self.then, [], "")
        return result


def _has_norms(network: nn.Module) -> bool:
    return any(isinstance(one, _NORMS) for one in network.modules())


def _fold_norms(network: nn.Module) -> None:
    for sequence in _sequences(network):
        for (parent, name, first), (norm_parent, norm_name, norm) in itertools.pairwise(sequence):
            if not isinstance(norm, nn.BatchNorm3d) or norm.running_mean is None:
                continue
            if isinstance(first, nn.Conv3d | nn.ConvTranspose3d):
                transpose = isinstance(first, nn.ConvTranspose3d)
                parent._modules[name] = fuse_conv_bn_eval(first, norm, transpose=transpose)
                norm_parent._modules[norm_name] = nn.Identity()


def _replace_pointwise(network: nn.Module) -> None:
    for parent, name, module in _children(network):
        if isinstance(module, nn.Conv3d) and _is_plain(module) and set(module.kernel_size) == {1}:
            parent._modules[name] = _Pointwise(module)


def _pack(network: nn.Module, *, reduced: bool) -> None:
    if not hasattr(torch._C._nn, "mkldnn_reorder_conv3d_weight") or not torch.backends.mkldnn.is_available():
        return
    followed: set[nn.Module] = set()  # by a ReLU, which is done in the same call
    for sequence in _sequences(network):
        layers = [place for place in sequence if not isinstance(place[2], nn.Identity)]
        for (_, _, first), (parent, name, then) in itertools.pairwise(layers):
            if isinstance(first, nn.Conv3d) and isinstance(then, nn.ReLU):
                followed.add(first)
                parent._modules[name] = nn.Identity()
    for parent, name, module in _children(network):
        if isinstance(module, nn.Conv3d) and isinstance(module.padding, tuple) and module.padding_mode == "zeros":
            parent._modules[name] = _Packed(module, relu=module in followed, winograd=not reduced)
        elif module in followed:
            parent._modules[name] = nn.Sequential(module, nn.ReLU())


def _is_plain(module: nn.Conv3d) -> bool:
    numbers = {*module.stride, *module.dilation, module.groups}
    return numbers == {1} and not isinstance(module.padding, str) and not any(module.padding)


def _children(network: nn.Module) -> list[tuple[nn.Module, str, nn.Module]]:
    return [(parent, name, child) for parent in network.modules() for name, child in parent.named_children()]


def _sequences(network: nn.Module) -> Iterator[list[tuple[nn.Module, str, nn.Module]]]:
    """The layers of every nn.Sequential that is in no other, those inside others among them, as they are called."""
    inner = {child for one in network.modules() if _is_sequence(one) for child in one.children()}
    for one in network.modules():
        if _is_sequence(one) and one not in inner:
            yield list(_layers(one))


def _layers(sequence: nn.Module) -> Iterator[tuple[nn.Module, str, nn.Module]]:
    for name, child in sequence.named_children():
        if _is_sequence(child):
            yield from _layers(child)
        else:
            yield sequence, name, child


def _is_sequence(module: nn.Module) -> bool:
    return isinstance(module, nn.Sequential) and type(module).forward is nn.Sequential.forward


def _say_the_same(network: nn.Module, fast: nn.Module, window: Sequence[int], channels: int, *, reduced: bool) -> bool:
    """Whether the probabilities agree on noise, which reaches every layer."""
    generator = torch.Generator().manual_seed(0)
    window = tuple(_TRIED if length == -1 else length for length in window)
    for size in (tuple(min(length, _TRIED) for length in window), window):
        image = torch.randn(1, channels, *size, generator=generator)
        try:
            wanted, found = (torch.softmax(one(image).float(), 1) for one in (network, fast))
        except (ValueError, RuntimeError, TypeError, AttributeError):
            continue  # a size that the network does not take, or a layer that cannot be called so
        if not torch.isfinite(wanted).all():
            return False
        return bool((wanted - found).abs().max() <= (_TOLERANCE_REDUCED if reduced else _TOLERANCE))
    return False
