"""Semi-supervised methods: one file each, one verb each."""

from semi_med.methods.base import AdversarialMethod, Batch, Method
from semi_med.methods.bcp import BCP, CopyPaste
from semi_med.methods.cotraining import CoTraining
from semi_med.methods.cps import CPS
from semi_med.methods.dense_fixmatch import DenseFixMatch
from semi_med.methods.fixmatch import FixMatch
from semi_med.methods.fixmatchseg import FixMatchSeg
from semi_med.methods.mean_teacher import MeanTeacher
from semi_med.methods.segmatch import SegMatch
from semi_med.methods.supervised import Supervised
from semi_med.methods.supmix_sufd import SupMixSUFD
from semi_med.methods.uamt import UAMT
from semi_med.methods.unimatch import UniMatch

__all__ = [
    "BCP",
    "CPS",
    "UAMT",
    "AdversarialMethod",
    "Batch",
    "CoTraining",
    "CopyPaste",
    "DenseFixMatch",
    "FixMatch",
    "FixMatchSeg",
    "MeanTeacher",
    "Method",
    "SegMatch",
    "SupMixSUFD",
    "Supervised",
    "UniMatch",
]
