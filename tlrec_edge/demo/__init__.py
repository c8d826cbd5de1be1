"""The full pipeline on public data: from raw tables to a measured bundle and a report."""

from tlrec_edge.demo.pipeline import run_demo
from tlrec_edge.demo.result import DemoConfig, DemoResult

__all__ = ["DemoConfig", "DemoResult", "run_demo"]
