"""How sure the networks are of a segmentation: one number for each class and case, and maps."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from semi_med.inference.members import entropy

_FAINT = 0.3  # probabilities below are not counted


class Summary:
    """Soft Dice confidence: the Dice that a segmentation would have if the probabilities were the truth on average.

    Borges et al., 2024, arXiv:2402.10665: twice the probability inside, divided by all probability of the class and
    the voxels inside. It needs no label. How well it ranks cases by their true Dice depends on network and data and
    must be looked at on labelled cases that no training has seen (`semi-med evaluate --scores`).

    Differs from the paper: probabilities below 0.3 are not counted. Trained on few labels, networks leave up to a
    fifth on each of very many voxels of the background, which outweigh the structure and say nothing of it.

    Slabs are added one by one; a class is compared with the label that its probabilities give, before anything is
    cleaned or brought to another grid.

    Args:
        classes: how many there are, background included.
    """

    def __init__(self, classes: int) -> None:
        self._sum = torch.zeros((), dtype=torch.float64)
        self._probability = torch.zeros(classes, dtype=torch.float64)
        self._inside = torch.zeros(classes, dtype=torch.float64)
        self._voxels = torch.zeros(classes, dtype=torch.float64)

    def add(self, probs: Tensor, label: Tensor) -> None:
        """Counts a slab: probabilities (classes, *spatial) and class indices (*spatial)."""
        for index, channel in enumerate(probs):
            inside = label == index
            self._sum += channel.sum(dtype=torch.float64).cpu()
            self._probability[index] += torch.where(channel < _FAINT, 0, channel).sum(dtype=torch.float64).cpu()
            self._inside[index] += torch.where(inside, channel, 0).sum(dtype=torch.float64).cpu()
            self._voxels[index] += inside.sum().cpu()

    @property
    def finite(self) -> bool:
        """Whether all probabilities were."""
        return bool(torch.isfinite(self._sum))

    def confidence(self, index: int) -> float:
        """Of a class; NaN if neither a voxel nor any probability that counts is there."""
        total = float(self._probability[index] + self._voxels[index])
        return 2 * float(self._inside[index]) / total if total > 0 else math.nan


def most_probable(probs: Tensor) -> Tensor:
    """Class indices (*spatial) of (classes, *spatial), uint8 or int16; of equal ones the first. Takes little memory."""
    best, label = probs[0].clone(), torch.zeros(probs.shape[1:], dtype=_index_type(len(probs)), device=probs.device)
    for index in range(1, len(probs)):
        better = probs[index] > best
        label[better] = index
        torch.maximum(best, probs[index], out=best)
    return label


def _index_type(classes: int) -> torch.dtype:
    return torch.uint8 if classes <= 256 else torch.int16


def uncertainty(probs: Tensor) -> Tensor:
    """Entropy (*spatial) of probabilities (classes, *spatial), from 0 (sure) to 1 (every class as likely)."""
    return entropy(probs[None])[0, 0] / math.log(len(probs))


def disagreement(probs: Tensor, members: Tensor) -> Tensor:
    """Mutual information (*spatial) of class and member: 0 where all members say the same, whatever it is; up to 1.

    The members are networks, mirror images and overlapping windows. Houlsby et al., 2011, arXiv:1112.5745.

    Args:
        probs: (classes, *spatial), the mean.
        members: (*spatial), the mean of their entropies in nats.
    """
    return (uncertainty(probs) - members / math.log(len(probs))).clamp(min=0)
