"""The report: one self-contained HTML file from a demo's results."""

from tlrec_edge.report.page import render

__all__ = ["render"]
