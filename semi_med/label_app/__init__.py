"""Annotating with MONAI Label: semi-supervised training inside 3D Slicer, OHIF and QuPath."""
