"""What a bundle must prove before it is published.

Each gate may be waived by name; the manifest then says which was, and why it failed. It also says
which gates had nothing to look at.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from tlrec_edge.bundle.format import ENCODER, ITEM_TOWER
from tlrec_edge.core.cost import SLOWDOWN_TOLERANCE
from tlrec_edge.errors import ExportError
from tlrec_edge.runtime.history import History
from tlrec_edge.runtime.recommender import Recommender
from tlrec_edge.types import Floats

from .lint import lint
from .manifest import latencies
from .parity import Parity

Rescore = Callable[[Recommender, Any, Sequence[str]], Floats]
COMPARED_CANDIDATES = 200
"""Candidates of a sampled user that are also scored alone and in another order."""
COMPARED_USERS, UNKNOWN_USERS = 8, 4
"""Sampled users that the gates batch and order, and the gate unknown, score again."""
MAX_ROUNDING_SHARE = 0.02
"""Root mean square that rounding user vectors may add to scores, as a share of their standard
deviation; about .002 is usual."""
UNKNOWN_ID = "\x00 no such item \x00"


@dataclass(frozen=True)
class NotChecked:
    """A gate had nothing to look at; ``why`` says why."""

    why: str


Verdict = str | NotChecked | None
"""What is wrong and what to do, if a gate fails; None if it passes."""
_FLOAT32 = NotChecked("float32 tables, whose scores depend on the batch in their last bits")
_NO_HISTORIES = NotChecked("no user has a history")
_NOT_COMPRESSED = NotChecked("the model was not compressed")


@dataclass(frozen=True)
class GateResults:
    """The results of the gates by name, each in one of three."""

    passed: tuple[str, ...]
    not_checked: Mapping[str, str]
    """Why a gate had nothing to look at."""
    allowed: Mapping[str, str]
    """Why a gate failed that was waived."""

    def to_json(self) -> dict[str, Any]:
        """Return the manifest's ``gates``."""
        return {
            "passed": list(self.passed),
            "not_checked": dict(self.not_checked),
            "allowed": dict(self.allowed),
        }


@dataclass(frozen=True)
class Evidence:
    """What the gates look at.

    Attributes:
        bundle: The staging folder of the bundle.
        histories: Histories of sampled users.
        candidates: Ids of all candidates.
        parity: How far the bundle's scores are from the torch model's.
        tolerance: Largest difference from the torch model that is accepted.
        cards: The ``quality`` and ``transfer`` cards, either of which may be missing.
        compression: What the compression measured; empty if the model was not compressed.
    """

    bundle: Path
    histories: Sequence[History]
    candidates: Sequence[str]
    parity: Parity
    tolerance: float
    cards: Mapping[str, Any]
    compression: Mapping[str, Any]


def parity(evidence: Evidence) -> Verdict:
    """The float path must match the torch model, and the deterministic path the float path."""
    found = evidence.parity
    if not found.users:
        return _NO_HISTORIES
    if not found.max_error <= evidence.tolerance:  # NaN fails
        return (
            f"the bundle's scores differ from the torch model's by {found.max_error:.2g}, "
            f"more than the {evidence.tolerance:g} allowed; train again with another --seed, "
            "or report the model"
        )
    share = found.exact_rms_share
    if share is None or share <= MAX_ROUNDING_SHARE:
        return None
    return (
        f"rounding user vectors moves scores by {share:.1%} of their standard deviation, "
        f"more than the {MAX_ROUNDING_SHARE:.0%} allowed, because one entry is far larger than the "
        "others; train again with another --seed, or export float32 tables"
    )


def batch(evidence: Evidence) -> Verdict:
    """A candidate must score the same alone and in a batch, bit for bit."""

    def alone(rec: Recommender, state: Any, names: Sequence[str]) -> Floats:
        return np.concatenate([rec.score(state, [name]) for name in names])

    return _compare(evidence, alone, "alone")


def order(evidence: Evidence) -> Verdict:
    """A candidate must score the same in any order, bit for bit."""

    def reversed_(rec: Recommender, state: Any, names: Sequence[str]) -> Floats:
        return rec.score(state, names[::-1])[::-1]

    return _compare(evidence, reversed_, "in another order")


def unknown(evidence: Evidence) -> Verdict:
    """An unknown candidate must score by policy, and an unknown item in a history change nothing.

    It is put first in the history, which keeps the position of every known item.
    """
    if not evidence.histories:
        return _NO_HISTORIES
    names = evidence.candidates[:COMPARED_CANDIDATES]
    with Recommender.open(evidence.bundle) as rec:
        policy = np.float32(rec.manifest["unknown_score"])
        for history in evidence.histories[:UNKNOWN_USERS]:
            if rec.score(history, [UNKNOWN_ID])[0] != policy:
                return "an unknown candidate is not scored by the bundle's policy; report the model"
            known = rec.score(History(list(history.items)), names)
            if not np.array_equal(rec.score(History([UNKNOWN_ID, *history.items]), names), known):
                return "an unknown item in a history changes its scores; report the model"
    return None


def graph(evidence: Evidence) -> Verdict:
    """No graph may hold nodes that are known to be slow, or to couple the scores of a batch."""
    for name in (ENCODER, ITEM_TOWER):
        path = evidence.bundle / name
        if path.is_file() and (findings := lint(onnx.load(path))):
            others = f" ({len(findings) - 1} more)" if findings[1:] else ""
            return f"{name}: {findings[0]}{others}"
    return None


def quality(evidence: Evidence) -> Verdict:
    """A compressed model must keep its budget on the test rows too, within two standard errors."""
    compression = evidence.compression
    test, budget = compression.get("test") or {}, str(compression.get("budget", ""))
    ratio, se = test.get("ratio"), test.get("se") or 0.0
    if ratio is None or ">=" not in budget:
        return _NOT_COMPRESSED if not compression else NotChecked("not measured on the test rows")
    share = float(budget.partition(">=")[2].removesuffix("%")) / 100
    if ratio + 2 * se >= share:
        return None
    return (
        f"compression kept {ratio:.1%} (SE {se:.1%}) on the test rows, "
        f"below its budget of {budget}; compress again with another --seed or a larger budget"
    )


def speed(evidence: Evidence) -> Verdict:
    """A compressed model must not be slower than the original, on the machine that compressed it.

    If it was compressed with a latency target, the search checked that target instead.
    """
    compression = evidence.compression
    if compression.get("target"):
        return NotChecked("the search checked its latency target")
    chosen, original = latencies(compression)
    if not chosen or not original:
        return _NOT_COMPRESSED if not compression else NotChecked("not timed")
    ratio = chosen["p50"] / original["p50"]
    if ratio <= SLOWDOWN_TOLERANCE:
        return None
    return f"the compressed model takes {ratio:.2f} times as long as the original; compress it here"


def transfer(evidence: Evidence) -> Verdict:
    """A claim of transfer must rest on a gain of at least two standard errors."""
    card = evidence.cards.get("transfer") or {}
    gain, se = card.get("ndcg@10"), card.get("se")
    if card.get("claim", "none") == "none":
        return NotChecked("no transfer is claimed")
    if gain is not None and se and gain >= 2 * se:
        return None
    return "the card claims transfer without a gain of two standard errors; measure it again"


GATES: dict[str, Callable[[Evidence], Verdict]] = {
    "parity": parity,
    "batch": batch,
    "order": order,
    "unknown": unknown,
    "graph": graph,
    "quality": quality,
    "speed": speed,
    "transfer": transfer,
}
"""Gates by name."""
BUNDLE_GATES = ("parity", "batch", "order", "unknown", "graph")
"""Gates that need only the bundle, and no earlier measurement of the model."""


def check_gates(evidence: Evidence, names: Sequence[str], allow: Sequence[str]) -> GateResults:
    """Check gates in order.

    Args:
        evidence: What the gates look at.
        names: Names of the gates to check.
        allow: Names of the gates that may fail.

    Raises:
        ExportError: If a gate fails that is not in ``allow``.
    """
    passed, not_checked, allowed = [], {}, {}
    for name in names:
        verdict = GATES[name](evidence)
        if verdict is None:
            passed.append(name)
        elif isinstance(verdict, NotChecked):
            not_checked[name] = verdict.why
        elif name in allow:
            allowed[name] = verdict
        else:
            waiver = f"--allow {name} exports it anyway; the manifest then says so"
            raise ExportError(f"{name} gate: {verdict}", waiver)
    return GateResults(tuple(passed), not_checked, allowed)


def _compare(evidence: Evidence, rescore: Rescore, how: str) -> Verdict:
    """Name the first candidate whose bits change if it is scored another way."""
    names = list(evidence.candidates[:COMPARED_CANDIDATES])
    with Recommender.open(evidence.bundle) as rec:
        if not rec.deterministic:
            return _FLOAT32
        if not evidence.histories:
            return _NO_HISTORIES
        for history in evidence.histories[:COMPARED_USERS]:
            state = rec.user_state(history)
            together, again = rec.score(state, names), rescore(rec, state, names)
            # Compared as bits: NaN equals itself, and 0.0 differs from -0.0.
            differ = np.flatnonzero(together.view(np.int32) != np.asarray(again).view(np.int32))
            if len(differ):
                name = names[differ[0]]
                return f"{name!r} scores differently {how} than in a batch; report the model"
    return None
