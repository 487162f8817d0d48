"""Pancreas-CT: numbers of the patients in the published orders of the two protocols, which have no list in common.

A is the list of MC-Net (Wu et al.), which DTC, TraCoCo, Co-BioNet and AD-MT share: the labeled 10 and 20 % are its
first 6 and 12. B is that of CoraNet (Shi et al.), which BCP, SDCL and CauSSL share: 12 labeled, by number.
"""

from __future__ import annotations

SAME_SCAN = 2  # the withdrawn cases show this scan again, cropped a little differently
WITHDRAWN = (25, 70)  # taken back by the archive; A uses them, B does not

# fmt: off
A_TRAIN = (
    57, 18, 62, 31, 20, 17, 32, 79, 61, 64, 70, 19, 48, 76, 41, 52, 49, 71, 72, 34,
    10, 15, 77, 80, 27, 47, 22, 14, 68, 58, 7, 11, 24, 42, 82, 35, 12, 55, 75, 78,
    16, 13, 53, 23, 56, 33, 38, 30, 81, 29, 36, 44, 2, 45, 26, 65, 66, 43, 28, 63,
    69, 3,
)
A_TEST = (
    50, 59, 37, 60, 40, 74, 4, 46, 8, 54, 5, 73, 1, 39, 6, 67, 25, 51, 21, 9,
)
B_LABELED = (
    1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12,
)
B_UNLABELED = (
    13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 26, 27, 28, 29, 30, 31, 32, 33,
    34, 35, 36, 37, 38, 39, 40, 41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52, 53,
    54, 55, 56, 57, 58, 59, 60, 61, 62, 63,
)
B_TEST = (
    64, 65, 66, 67, 68, 69, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80, 81, 82,
)
# fmt: on
