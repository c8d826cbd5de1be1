"""The quality and transfer cards of a bundle, measured on the test rows."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tlrec_edge.core.metrics import nan_to_none
from tlrec_edge.core.progress import Reporter
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.task import make_tasks
from tlrec_edge.evaluation.evaluate import baseline_rankers, evaluate, model_ranker
from tlrec_edge.evaluation.result import Evaluation
from tlrec_edge.train.edge_model import EdgeModel

_CARD_COLUMNS = ("name", "ndcg@10", "ndcg@10.se", "hr@10")


def measure_cards(
    model: EdgeModel, dataset: Dataset, progress: Reporter | None = None
) -> dict[str, Any]:
    """Evaluate the model next to its baselines and return its cards.

    Without test rows the cards hold the reason instead of figures. Raises LeakError if the model
    was trained on rows that its test holds out.
    """
    made = model.provenance
    tasks = make_tasks(dataset, made.domains, made.fold)
    if not len(tasks.final.rows):
        why = "the split leaves no test rows in the target"
        return {"quality": {"tests": 0, "why": why}, "transfer": {"claim": "none", "why": why}}
    config = made.train if made.mode != "scratch" else None
    rankers = {**baseline_rankers(config, dataset), "model": model_ranker(model, dataset)}
    result = evaluate(dataset, made.domains, rankers, progress=progress, tasks=tasks)
    return {
        "quality": quality_card(result),
        "transfer": transfer_card(result, made.mode, made.source),
    }


def transfer_card(
    evaluation: Evaluation, mode: str | None, source: Sequence[str] | None, model: str = "model"
) -> dict[str, Any]:
    """Return what a bundle may claim about transfer.

    It claims a gain only if the lift over the best model that knows the target alone is at least
    two standard errors. If the lift against the full catalogue has another sign, the claim is
    limited to the negatives.
    """
    if not source or mode == "scratch":
        return {"claim": "none", "why": "the model was trained on the target only"}
    comparison = evaluation.comparisons(model)["transfer"]
    lift, over = comparison.lift, comparison.over
    card = nan_to_none(
        {
            "mode": mode,
            "source": list(source),
            "over": over,
            "ndcg@10": lift.mean,
            "se": lift.se,
            "low": lift.low,
            "high": lift.high,
            "users": evaluation.users,
            "tests": evaluation.tests,
        }
    )
    if lift.verdict != "better":
        why = f"NDCG@10 {lift.mean:+.4f} (SE {lift.se:.4f}) over {over}: {lift.verdict}"
        return {"claim": "none", "why": why, **card}
    if comparison.differs:
        return {"claim": "transfer among negatives only", "why": comparison.note(), **card}
    return {"claim": "transfer", **card}


def quality_card(evaluation: Evaluation) -> dict[str, Any]:
    """Return the test figures of the model and its baselines for the manifest."""
    rows = [{key: row[key] for key in _CARD_COLUMNS} for row in evaluation.rows()]
    return {"users": evaluation.users, "tests": evaluation.tests, "rows": rows}
