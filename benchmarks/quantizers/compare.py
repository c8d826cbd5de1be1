"""Compare quantizers on a two-tower model: NDCG, bytes, time, and batch dependence.

    python benchmarks/quantizers/compare.py MODEL DATASET DOMAIN

MODEL is a folder from `tlrec-edge adapt`. Every quantizer ranks the same test rows. Only the
two-tower part differs; the linear parts stay float32. The graph contains the tables, as in the
usual export: history rows and candidate rows to scores. Batch dependence is the largest change
of a score, in standard deviations of the scores, if other users are scored in the same call.
"""

from __future__ import annotations

import argparse
import tempfile
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from contenders import CONTENDERS, Feed
from rich.console import Console
from rich.table import Table
from torch import Tensor, nn

from tlrec_edge.core.metrics import METRICS, paired_lift, rank_of_positive
from tlrec_edge.data.store import load_dataset
from tlrec_edge.data.task import Task, make_tasks
from tlrec_edge.export.cost import measure_costs
from tlrec_edge.export.graphs import encoder_graph
from tlrec_edge.linear.ranking import make_queries, sample_rows
from tlrec_edge.quantize import quantize_graphs, quantize_tables
from tlrec_edge.train.edge_model import EdgeModel
from tlrec_edge.train.examples import gather_histories
from tlrec_edge.train.model import AGE_BUCKETS
from tlrec_edge.train.parts import PARTS
from tlrec_edge.train.user_histories import UserHistories

ROUNDS = 200


class Whole(nn.Module):
    """Tables, encoder and dot product in one graph."""

    def __init__(self, model: EdgeModel) -> None:
        super().__init__()
        self.history = nn.Parameter(torch.from_numpy(model.history_vectors), requires_grad=False)
        self.candidate = nn.Parameter(
            torch.from_numpy(model.candidate_vectors), requires_grad=False
        )
        self.encoder = model.net.encoder

    def forward(self, history: Tensor, log_weight: Tensor, candidates: Tensor) -> Tensor:
        user = self.encoder(nn.functional.embedding(history, self.history), log_weight)  # (B, d)
        scores: Tensor = (
            nn.functional.embedding(candidates, self.candidate) @ user.unsqueeze(2)
        ).squeeze(2)  # (B, M)
        return scores


def export(model: EdgeModel, path: Path) -> None:
    length = model.net.config.history
    example = (
        torch.zeros(2, length, dtype=torch.int64),
        torch.zeros(2, length),
        torch.zeros(2, 3, dtype=torch.int64),
    )
    batch, many = torch.export.Dim("batch", min=1), torch.export.Dim("many", min=1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            Whole(model).eval(),
            example,
            str(path),
            input_names=["history", "log_weight", "candidates"],
            output_names=["scores"],
            dynamic_shapes=({0: batch}, {0: batch}, {0: batch, 1: many}),
            opset_version=18,
            dynamo=True,
            external_data=False,
            verbose=False,
        )


def feeds_of(
    model: EdgeModel, histories: UserHistories, users: np.ndarray, candidates: np.ndarray
) -> Feed:
    item, *rest = gather_histories(
        histories.log,
        histories.start[users],
        histories.start[users + 1],
        histories.rows,
        model.net.config.history,
        AGE_BUCKETS,
    )
    with torch.no_grad():
        weight = model.net.log_weight(*map(torch.from_numpy, rest)).numpy()
    return {
        "history": item.astype(np.int64),
        "log_weight": weight,
        "candidates": candidates.astype(np.int64),
    }


def session(path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def variants(folder: Path, source: Path, feeds: list[Feed]) -> tuple[dict[str, Path], list[str]]:
    """Quantize the graph with every quantizer; return the files and the reasons of failures."""
    found, missing = {"float32": source}, []
    for name, quantize in CONTENDERS.items():
        path = folder / f"{len(found)}.onnx"
        try:
            quantize(source, path, feeds)
            session(path).run(None, feeds[0])
        except ModuleNotFoundError as error:
            missing.append(f"{name}: not installed ({error})")
        except Exception as error:  # any of many
            missing.append(f"{name}: does not run ({' '.join(str(error).split())[:200]})")
        else:
            found[name] = path
    return found, missing


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model", type=Path)
    parser.add_argument("dataset", type=Path)
    parser.add_argument("domain")
    given = parser.parse_args()
    dataset, model = load_dataset(given.dataset), EdgeModel.load(given.model)
    task = sample_rows(make_tasks(dataset, (given.domain,), model.provenance.fold).final)
    histories = UserHistories.of(task.history, model.rows(dataset), task.n_users, len(model.ids))
    queries = make_queries(task, task.rows)
    parts = [queries.gather(part) for part in model.part_scores(histories, queries.user)]
    weights = [getattr(model.score_weights, name) for name in PARTS]
    rest = sum(
        (w * p for w, p in zip(weights[1:], parts[1:], strict=True)), np.zeros_like(parts[0])
    )
    known = histories.length(queries.user)[queries.user_index] > 0
    columns = model.rows(dataset)[task.candidates][queries.columns]

    def values(deep: np.ndarray) -> np.ndarray:
        total = rest + weights[0] * np.where(known[:, None], deep, 0.0)
        return METRICS["ndcg"](rank_of_positive(total, queries.valid), 10)

    base = values(parts[0])
    feeds = feeds_of(model, histories, queries.user[queries.user_index], columns)
    one = [{name: value[i : i + 1] for name, value in feeds.items()} for i in range(len(columns))]
    table = Table(
        title=f"{given.domain}: {len(base):,} tests, NDCG@10 {base.mean():.4f} in float32"
    )
    for head in ("deep part", "NDCG@10, ratio (SE)", "bytes", "us a call", "of float32", "company"):
        table.add_column(head, justify="left" if head == "deep part" else "right")
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "float32.onnx"
        export(model, source)
        found, missing = variants(Path(folder), source, one[:100])
        sessions = {name: session(path) for name, path in found.items()}
        us = timed(sessions, one)
        spread = float(np.std(parts[0] - parts[0].mean(1, keepdims=True)))
        for name, run in sessions.items():
            alone = np.concatenate([run.run(None, feed)[0] for feed in one])
            together = np.concatenate(
                [
                    run.run(None, {key: value[i : i + 32] for key, value in feeds.items()})[0]
                    for i in range(0, len(columns), 32)
                ]
            )
            company = float(np.abs(alone - together).max()) / spread
            table.add_row(
                name,
                *figures(values(together), base, task),
                f"{found[name].stat().st_size:,}",
                f"{us[name]:.0f}",
                f"{us[name] / us['float32']:.2f}",
                f"{company:.1e}",
            )
        table.add_section()
        ours = {
            f"ours, int{bits} rows": quantize_graphs(quantize_tables(model, bits))
            for bits in (8, 4)
        }
        first, *costs = measure_costs([model, *ours.values()], dataset)
        for (name, small), cost in zip(ours.items(), costs, strict=True):
            deep = queries.gather(
                small.user_vectors(histories, queries.user) @ small.candidate_vectors.T
            )
            table.add_row(
                name,
                *figures(values(deep), base, task),
                f"{deep_bytes(small):,}",
                "-",
                f"{cost.us['p50'] / first.us['p50']:.2f} *",
                "0 *",
            )
    console = Console(width=150)
    console.print(table)
    console.print("* as a bundle: p50 of a request over that of the float32 bundle")
    for line in missing:
        console.print(line, markup=False)


def deep_bytes(model: EdgeModel) -> int:
    """Return the bytes of both tables and of the encoder's graph as a bundle stores them."""
    tables = (model.tables.history, model.tables.candidate)
    return len(encoder_graph(model)) + sum(
        t.rows.size * t.bits // 8 + t.scale.nbytes for t in tables
    )


def figures(values: np.ndarray, base: np.ndarray, task: Task) -> tuple[str]:
    lift = paired_lift(values, base, task.rows.user)
    return (
        f"{values.mean():.4f}, {values.mean() / base.mean():.4f} ({lift.se / base.mean():.4f})",
    )


def timed(sessions: dict[str, Any], feeds: list[Feed]) -> dict[str, float]:
    """Return the median microseconds of a call for one user; sessions take turns."""
    rng = np.random.default_rng(0)
    taken: dict[str, list[float]] = {name: [] for name in sessions}
    for turn in range(ROUNDS):
        for name in rng.permutation(list(sessions)):
            before = time.perf_counter_ns()
            sessions[name].run(None, feeds[turn % len(feeds)])
            taken[name].append((time.perf_counter_ns() - before) / 1000)
    return {name: float(np.median(values)) for name, values in taken.items()}


if __name__ == "__main__":
    main()
