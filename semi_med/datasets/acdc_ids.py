"""ACDC: the published split of the 100 training patients, by number and in the published order.

From the lists of SSL4MIS (Luo et al.), which UniMatch and BCP share: 70 patients for training, 10 for validation, 20
for the test, two frames each. The labeled 1, 3, 7 and 14 patients are the first for training.
"""

from __future__ import annotations

# fmt: off
TRAIN = (
    99, 38, 50, 100, 58, 21, 49, 20, 72, 40, 60, 89, 4, 56, 98, 96, 31, 18, 94, 47,
    48, 55, 97, 74, 43, 41, 63, 37, 95, 54, 26, 88, 32, 69, 6, 71, 12, 73, 61, 17,
    25, 10, 57, 29, 51, 5, 36, 46, 62, 34, 76, 92, 70, 77, 67, 3, 91, 16, 14, 44,
    42, 90, 53, 27, 35, 86, 23, 9, 79, 15,
)
VALIDATION = (
    28, 85, 82, 87, 19, 30, 78, 45, 2, 39,
)
TEST = (
    11, 13, 84, 33, 93, 22, 68, 24, 83, 81, 80, 1, 7, 66, 8, 65, 75, 64, 59, 52,
)
# slices of one frame of each training patient, as the published list of slices has them: 1312 in both frames
SLICES = (
    16, 8, 10, 8, 9, 10, 7, 8, 8, 10, 9, 6, 10, 9, 7, 18, 10, 8, 10, 9,
    8, 9, 8, 8, 12, 6, 8, 7, 14, 8, 10, 16, 10, 7, 11, 10, 10, 7, 9, 9,
    9, 10, 8, 11, 10, 10, 8, 9, 10, 10, 8, 15, 6, 8, 10, 10, 8, 10, 10, 9,
    9, 7, 7, 10, 13, 7, 9, 10, 9, 9,
)
# fmt: on
