"""A network in three steps, so that a method can reach between them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from semi_med.errors import InputError


@runtime_checkable
class Stepped(Protocol):
    """What all networks of this package are: `forward(image)` is `classify(decode(features(image)), image.shape[2:])`.

    UniMatch drops channels between the first two steps, SUFD compares maps between the last two. In a
    DistributedDataParallel wrapper the steps are those of the network inside (`semi_med.ops.bare`); gradients are
    averaged over processes all the same as long as each update also calls the wrapper itself.
    """

    decoded_channels: int

    def features(self, image: Tensor) -> list[Tensor]:
        """The encoder's maps that the decoder reads, finest first, each `(B, C_i, *spatial_i)`."""
        ...

    def decode(self, features: Sequence[Tensor]) -> Tensor:
        """The last map before the classes, `(B, decoded_channels, *coarse)`; `features` are left as they are."""
        ...

    def classify(self, decoded: Tensor, size: Sequence[int]) -> Tensor:
        """Logits `(B, classes, *size)` of the decoder's map; `size` is that of the image."""
        ...


def stepped(network: nn.Module, *, wanted_by: str) -> Stepped:
    """The network itself, if it can be run in steps.

    Args:
        network: not wrapped.
        wanted_by: name of the method, for the error.

    Raises:
        InputError: code SETTING.
    """
    if not isinstance(network, Stepped):
        raise InputError(
            f"{wanted_by} reaches between encoder and decoder, and {type(network).__name__} cannot be run in steps",
            fix="Set network_def to a network of semi_med.networks, or give yours `features`, `decode`, `classify` and "
            "`decoded_channels` (semi_med.networks.Stepped)",
            code="SETTING",
        )
    return network
