"""UA-MT: a mean teacher that is followed only where it is certain."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.modules.dropout import _DropoutNd

from semi_med.methods.base import require_share
from semi_med.methods.mean_teacher import MeanTeacher
from semi_med.ops import entropy, gaussian_ramp


@dataclass(kw_only=True, eq=False)
class UAMT(MeanTeacher):
    """As the mean teacher, but only voxels where Monte-Carlo dropout finds the teacher certain count.

    Yu et al., "Uncertainty-aware Self-ensembling Model for Semi-supervised 3D Left Atrium Segmentation", MICCAI 2019,
    arXiv:1907.07034. With mu the mean over T passes of the teacher with dropout and noise, and K classes:

        u = - sum over classes of mu log mu                                       (equation 2)
        certain where u < H(t),   H(t) = (h + (1 - h) * ramp(t)) * log K,   h = 3/4
        loss = L_sup + w(t) * mean over certain voxels and classes of (p_student - p_teacher)^2    (equation 3)

    Differs from the paper: log K and the mean over classes stand where its code has log 2 and a factor of 2, which is
    the same for its two classes; the mean teacher's differences.
    """

    passes: int = 8  # T
    first_threshold: float = 0.75  # h, as a share of the largest entropy

    def __post_init__(self) -> None:
        """Refuse a network whose passes would all be the same."""
        super().__post_init__()
        require_share("first_threshold", self.first_threshold)
        if self.passes < 1:
            raise ValueError(f"passes must be at least 1, not {self.passes}")
        if self.teacher_mode != "train":
            raise ValueError("teacher_mode must be train: in evaluation mode there is no Monte-Carlo dropout")
        if not any(isinstance(module, _DropoutNd) and module.p > 0 for module in self.network.modules()):
            raise ValueError(
                "UA-MT measures uncertainty by dropout and the network has none: set network_def#dropout above 0"
            )

    def _certain(self, image: Tensor, iteration: int) -> Tensor:
        mean = torch.stack([self._predict(image) for _ in range(self.passes)]).mean(0)
        ramp = gaussian_ramp(iteration, self.ramp_iterations)
        threshold = (self.first_threshold + (1 - self.first_threshold) * ramp) * math.log(mean.shape[1])
        return entropy(mean) < threshold
