"""What a bundle must prove before it is written; each gate may be waived by name, which the manifest then says."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from tlrec_edge.export.lint import lint

from tlrec_edge import History, Recommender
from tlrec_edge.cost import SLOWER
from tlrec_edge.errors import ExportError
from tlrec_edge.layout import ENCODER, ITEM_TOWER

Floats = NDArray[np.float32]
MANY = 200
"""Candidates of a sampled user that are also scored alone and in another order."""
EXACT_SHARE = 0.02
"""Root mean square that rounding user vectors may add to scores, as a share of their spread; about .002 is usual."""


@dataclass(frozen=True)
class Evidence:
    """What the gates look at: the draft bundle, sampled histories, candidate names, the largest difference from the
    torch model and what is allowed, that of the exact path from the float path (root mean square over the spread of
    scores, None without an exact path), the cards, and what the compression measured."""

    bundle: Path
    histories: Sequence[History]
    names: Sequence[str]
    max_error: float
    tolerance: float
    exact_share: float | None
    cards: Mapping[str, Any]
    compression: Mapping[str, Any]


def parity(found: Evidence) -> str | None:
    """The float path gives the torch model's scores, and the exact path, which serves, those of the float path."""
    if not found.max_error <= found.tolerance:  # NaN fails
        return (
            f"the bundle's scores differ from the torch model's by {found.max_error:.2g}, allowed are "
            f"{found.tolerance:g}; train again with another --seed or report the model"
        )
    if found.exact_share is None or found.exact_share <= EXACT_SHARE:
        return None
    return (
        f"rounding user vectors moves scores by {found.exact_share:.1%} of their spread, allowed are "
        f"{EXACT_SHARE:.0%}: an entry of them is far larger than the rest; train again with another --seed or "
        "export float32 tables"
    )


def batch(found: Evidence) -> str | None:
    """A pair scores the same alone and in a batch, bit for bit."""
    return _compare(
        found, lambda rec, state, names: np.concatenate([rec.score(state, [name]) for name in names]), "alone"
    )


def order(found: Evidence) -> str | None:
    """A pair scores the same in any order, bit for bit."""
    return _compare(found, lambda rec, state, names: rec.score(state, names[::-1])[::-1], "in another order")


def unknown(found: Evidence) -> str | None:
    """An unknown candidate scores by policy, and unknown items in a history change nothing."""
    odd = "\x00 no such item \x00"
    with Recommender.open(found.bundle) as rec:
        policy = np.float32(rec.manifest["unknown_score"])
        for history in found.histories[:4]:
            mixed = History([odd, *history.items])
            plain = rec.score(History(list(history.items)), found.names[:MANY])
            if rec.score(history, [odd])[0] != policy:
                return "an item that the bundle does not know is not scored by its policy; report the model"
            if not np.array_equal(rec.score(mixed, found.names[:MANY]), plain):
                return "an unknown item in a history changes its scores; report the model"
    return None


def graph(found: Evidence) -> str | None:
    """The graphs hold none of the shapes that are known to be slow, or to make a score depend on its batch."""
    for name in (ENCODER, ITEM_TOWER):
        path = found.bundle / name
        if path.is_file() and (wrong := lint(onnx.load(path))):
            return f"{name}: {wrong[0]}" + (f" ({len(wrong) - 1} more)" if wrong[1:] else "")
    return None


def quality(found: Evidence) -> str | None:
    """A compressed model keeps its budget on the test rows too, as far as they can tell."""
    test, budget = found.compression.get("test") or {}, str(found.compression.get("budget", ""))
    ratio, se = test.get("ratio"), test.get("se") or 0.0
    if ratio is None or ">=" not in budget:
        return None
    share = float(budget.partition(">=")[2].removesuffix("%")) / 100
    if ratio + 2 * se >= share:
        return None
    return (
        f"compression kept {ratio:.1%} (SE {se:.1%}) on the test rows, its budget is {budget}; "
        "compress again with another --seed or a larger budget"
    )


def speed(found: Evidence) -> str | None:
    """A compressed model is not slower than the original was, on the machine that compressed it.

    One that was compressed to a latency has met that instead.
    """
    if found.compression.get("target"):
        return None
    points = {point["step"]: point for point in found.compression.get("points", [])}
    chosen, first = points.get(found.compression.get("chosen")), next(iter(points.values()), None)
    if not chosen or not first or not chosen.get("us") or not first.get("us"):
        return None
    ratio = chosen["us"]["p50"] / first["us"]["p50"]
    return None if ratio <= SLOWER else f"the compressed model takes {ratio:.2f} times as long; compress again here"


def transfer(found: Evidence) -> str | None:
    """A claim of transfer rests on a lift that this model shows."""
    card = found.cards.get("transfer") or {}
    lift, se = card.get("ndcg@10"), card.get("se")
    if card.get("claim", "none") == "none":
        return None
    if lift is not None and se and lift >= 2 * se:
        return None
    return "the card claims transfer without a lift of two standard errors; measure it on this model again"


GATES: dict[str, Callable[[Evidence], str | None]] = {
    "parity": parity,
    "batch": batch,
    "order": order,
    "unknown": unknown,
    "graph": graph,
    "quality": quality,
    "speed": speed,
    "transfer": transfer,
}
"""Name -> what is wrong, or None."""
OF_BUNDLE = ("parity", "batch", "order", "unknown", "graph")
"""Gates that look at the bundle alone, not at what was measured of the model before."""


def check(found: Evidence, names: Sequence[str], allow: Sequence[str]) -> dict[str, str]:
    """Return what waived gates had to say. Raises ExportError at the first other one that refuses."""
    waived = {}
    for name in names:
        if (wrong := GATES[name](found)) is None:
            continue
        if name not in allow:
            raise ExportError(f"{name} gate: {wrong}", f"--allow {name} exports it all the same and says so")
        waived[name] = wrong
    return waived


def _compare(
    found: Evidence, again: Callable[[Recommender, Any, Sequence[str]], Floats], how: str
) -> str | None:  # fmt: skip
    names = list(found.names[:MANY])
    with Recommender.open(found.bundle) as rec:
        if not rec.exact:  # float32 tables promise no bits
            return None
        for history in found.histories[:8]:
            state = rec.user_state(history)
            whole = rec.score(state, names)
            off = np.flatnonzero(whole.view(np.int32) != np.asarray(again(rec, state, names)).view(np.int32))
            if len(off):
                return f"{names[off[0]]!r} scores differently {how} than in a batch; report the model"
    return None
