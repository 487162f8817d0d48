"""Semi-supervised methods: one file each, one verb each."""

from semi_med.methods.base import Batch, Method
from semi_med.methods.cotraining import CoTraining
from semi_med.methods.supervised import Supervised

__all__ = ["Batch", "CoTraining", "Method", "Supervised"]
