"""Metrics: one case to one row for each class, rows to a table, two tables to a verdict. Needs no torch."""

from semi_med.metrics.case import METRICS, case_metrics
from semi_med.metrics.evaluate import EvaluationResult, evaluate
from semi_med.metrics.files import read_table, write_csv, write_json
from semi_med.metrics.table import (
    Interval,
    PairedDifference,
    bootstrap_interval,
    case_means,
    higher_is_better,
    paired_difference,
    summarize,
)

__all__ = [
    "METRICS",
    "EvaluationResult",
    "Interval",
    "PairedDifference",
    "bootstrap_interval",
    "case_means",
    "case_metrics",
    "evaluate",
    "higher_is_better",
    "paired_difference",
    "read_table",
    "summarize",
    "write_csv",
    "write_json",
]
