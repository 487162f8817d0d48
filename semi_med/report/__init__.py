"""Reports: what runs were worth, on one self-contained HTML page that opens without a network."""

from semi_med.report.page import write_run_report
from semi_med.report.views import CaseView, RunView

__all__ = ["CaseView", "RunView", "write_run_report"]
