"""Rank test rows by every simple baseline, and compare exact with sparse EASE.

    python benchmarks/baselines/measure.py DATASET:DOMAIN ... [--new] [--sparse]

Each DATASET is a folder written by ``tlrec-edge prepare``, each DOMAIN a target in it. The table
has one column a target, with NDCG@10 among the sampled negatives / among all candidates. With
``--new`` the users of each fold are new to the target, and all folds are pooled (split
``new-users``). With ``--sparse`` only EASE is ranked: exact, then as it is fitted to data that are
too large for that. Each chooses its penalty on validation rows. Nothing is timed.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import load_dataset
from tlrec_edge.evaluation.evaluate import evaluate
from tlrec_edge.evaluation.result import Evaluation, pool
from tlrec_edge.linear import sparse_ease
from tlrec_edge.linear.baselines import simple_rankers
from tlrec_edge.linear.tuned import Ranker

Columns = Mapping[str, Evaluation]


def rank(dataset: Dataset, domain: str, rankers: Mapping[str, Ranker], new: bool) -> Evaluation:
    """Rank the test rows of one target, of all folds if its users are new."""
    folds = range(dataset.split.folds) if new else [None]
    return pool([evaluate(dataset, (domain,), rankers, fold) for fold in folds])


def rank_sparse(dataset: Dataset, domain: str, new: bool) -> Evaluation:
    """Rank the test rows by EASE, exact and sparse, and by itemCF.

    The dataset must have no cache, which would take exact and sparse EASE for the same.
    """
    rankers = simple_rankers(dataset)
    eases = {name: rankers[name] for name in ("ease-target", "ease")}
    item_cf = {name: rankers[name] for name in ("itemcf-target", "itemcf")}
    exact = rank(dataset, domain, {**item_cf, **eases}, new)
    limit, sparse_ease.EXACT_EASE_LIMIT = sparse_ease.EXACT_EASE_LIMIT, -1
    try:
        sparse = rank(dataset, domain, eases, new)
    finally:
        sparse_ease.EXACT_EASE_LIMIT = limit
    named = {f"{name}, sparse": ranking for name, ranking in sparse.rankings.items()}
    return Evaluation(exact.domains, {**exact.rankings, **named})


def table(columns: Columns) -> str:
    """Return the NDCG@10 of each baseline as a table in Markdown."""
    names = dict.fromkeys(name for found in columns.values() for name in found.rankings)
    lines = ["| NDCG@10 | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for name in names:
        cells = [_cell(found, name) for found in columns.values()]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _cell(found: Evaluation, name: str) -> str:
    row = next((row for row in found.rows() if row["name"] == name), None)
    if row is None:
        return ""
    full = row.get("full.ndcg@10")
    return f"{row['ndcg@10']:.4f}" + ("" if full is None else f" / {full:.4f}")


def main() -> None:
    """Measure the targets of the command line and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("targets", nargs="+", metavar="DATASET:DOMAIN")
    parser.add_argument("--new", action="store_true")
    parser.add_argument("--sparse", action="store_true")
    arguments = parser.parse_args()
    columns = {}
    for target in arguments.targets:
        folder, domain = target.rsplit(":", 1)
        dataset = load_dataset(Path(folder), cache=not arguments.sparse)
        if arguments.sparse:
            columns[domain] = rank_sparse(dataset, domain, arguments.new)
        else:
            columns[domain] = rank(dataset, domain, simple_rankers(dataset), arguments.new)
        print(table({domain: columns[domain]}), flush=True)
    print(table(columns))


if __name__ == "__main__":
    main()
