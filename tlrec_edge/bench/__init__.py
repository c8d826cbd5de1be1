"""The latency lab: what a bundle costs on this machine."""

from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.result import BenchResult
from tlrec_edge.bench.run import compare_bundles, run_bench

__all__ = ["BenchConfig", "BenchResult", "compare_bundles", "run_bench"]
