"""The trainers that all methods share, and what hangs on them. No method's name appears here."""

from semi_med.engines.adversarial import AdversarialTrainer
from semi_med.engines.checkpoints import Checkpoints
from semi_med.engines.curves import Curves, Progress
from semi_med.engines.early_stop import EarlyStop
from semi_med.engines.trainer import SemiSupervisedTrainer
from semi_med.engines.validation import Validate

__all__ = [
    "AdversarialTrainer",
    "Checkpoints",
    "Curves",
    "EarlyStop",
    "Progress",
    "SemiSupervisedTrainer",
    "Validate",
]
