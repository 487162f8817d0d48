"""Data sets, one module each, with `prepare(source, target)`: `semi_med.datasets.la`, `semi_med.datasets.phantom`."""
