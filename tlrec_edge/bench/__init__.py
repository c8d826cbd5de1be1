"""Benchmarks: what a bundle, or another system, costs on this machine."""

from tlrec_edge.bench.compare import compare_bundles
from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.result import BenchResult
from tlrec_edge.bench.run import run_bench

__all__ = ["BenchConfig", "BenchResult", "compare_bundles", "run_bench"]
