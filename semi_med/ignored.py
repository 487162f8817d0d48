"""The one value of a label that is no class: nobody knows, or says, what is there."""

IGNORED = 255
"""Losses, metrics and counts leave such voxels out of label and prediction alike. No class can have this number."""
