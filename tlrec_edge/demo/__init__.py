"""The main job whole, on real data: from raw tables to a measured bundle and a report."""

from tlrec_edge.demo.pipeline import DemoConfig, DemoResult, run_demo

__all__ = ["DemoConfig", "DemoResult", "run_demo"]
