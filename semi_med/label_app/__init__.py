"""Annotating with MONAI Label: semi-supervised training inside 3D Slicer, OHIF and QuPath.

`main.py` is the app that MONAI Label loads; `semi-med label` serves it behind `guard`. It runs in an environment of its
own, which `make label` sets up, as MONAI Label wants pydicom 2. `models`, `study`, `serve` and the guard can be
imported in any.
"""
