"""Reports: one self-contained HTML file with the results of a demo, evaluation or benchmark."""

from tlrec_edge.report.lab import render_bench, render_compare
from tlrec_edge.report.page import render

__all__ = ["render", "render_bench", "render_compare"]
