"""semi_med: segmentation models from a handful of labelled scans and many unlabelled ones.

Importing this package imports nothing heavy; each room (`semi_med.methods`, `semi_med.engines`, ...) is imported
where it is used.
"""

__version__ = "0.1.0"
