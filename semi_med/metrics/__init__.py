"""Metrics: one case to one row for each class, rows to a table, two tables to a verdict. Needs no torch."""

from semi_med.metrics.case import METRICS, case_metrics
from semi_med.metrics.comparison import (
    GapShare,
    MethodDifference,
    MethodMean,
    compare_methods,
    method_mean,
    share_of_gap,
)
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
    "GapShare",
    "Interval",
    "MethodDifference",
    "MethodMean",
    "PairedDifference",
    "bootstrap_interval",
    "case_means",
    "case_metrics",
    "compare_methods",
    "evaluate",
    "higher_is_better",
    "method_mean",
    "paired_difference",
    "read_table",
    "share_of_gap",
    "summarize",
    "write_csv",
    "write_json",
]
