"""Semi-supervised learning inside MONAI Label: what an annotator's Train, Run and Next Sample buttons call.

`main.py` is the app that MONAI Label loads; `semi-med label` serves it. It runs in an environment of its own, which
`make label` sets up, as MONAI Label wants pydicom 2. `models`, `study` and `serve` can be imported in any.
"""
