"""Reports: what runs were worth, on one self-contained HTML page that opens without a network."""

from semi_med.report.comparison import verdict_sentences, write_comparison
from semi_med.report.comparison_views import ComparisonView, RunResult
from semi_med.report.page import write_run_report
from semi_med.report.views import CaseView, RunView

__all__ = [
    "CaseView",
    "ComparisonView",
    "RunResult",
    "RunView",
    "verdict_sentences",
    "write_comparison",
    "write_run_report",
]
