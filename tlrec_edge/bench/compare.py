"""Compare two systems, A and B: how many times as long does B take?

The speed of a machine drifts by more than two bundles differ, so both are timed at the same moment.
Every request goes to both systems, one right after the other in random order, and the two times are
divided. The location of its memory alone can make a system a few per cent faster, so both are
opened again for every round. Each round gives one ratio; the interval is over the rounds.
"""

from __future__ import annotations

import math
import os
import statistics
from array import array
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tlrec_edge.bench.clock import WALL, Clock
from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.drivers import Call, Limits, warm_up
from tlrec_edge.bench.lab import Lab, caller
from tlrec_edge.bench.latency import binomial_cdf
from tlrec_edge.bench.noise import Noise, NoiseMeter
from tlrec_edge.bench.requests import ItemIds, Requests
from tlrec_edge.bench.system import BundleSource, Request, Source
from tlrec_edge.bundle.reader import Bundle

ROUNDS = 12
_CONFIDENCE = 0.95
_ROUND_FRACTION = 0.25
"""Duration of a round of ``compare_bundles``, as a fraction of the configured seconds."""
_DEFAULT = BenchConfig()


@dataclass(frozen=True)
class Ratio:
    """Time of B over time of A: the median over rounds of each round's median.

    The interval lies between two of the ordered rounds, so it holds for any distribution.
    """

    shape: str
    ratio: float
    low: float
    high: float
    confidence: float
    rounds: tuple[float, ...]
    a_us: float
    """Median time of A in microseconds."""
    b_us: float
    """Median time of B in microseconds."""

    @property
    def verdict(self) -> str:
        """``slower``, ``faster`` or ``no difference shown``, for B and by the interval."""
        return "slower" if self.low > 1 else "faster" if self.high < 1 else "no difference shown"

    def to_json(self) -> dict[str, Any]:
        """Return the ratio as JSON values."""
        return asdict(self) | {"rounds": list(self.rounds), "verdict": self.verdict}


class _Round(NamedTuple):
    ratio: float
    a_us: float
    b_us: float


def compare_bundles(
    a: str | os.PathLike[str],
    b: str | os.PathLike[str],
    config: BenchConfig = _DEFAULT,
    progress: Callable[[str], None] = lambda line: None,
    *,
    clock: Clock = WALL,
) -> tuple[list[Ratio], Noise]:
    """Compare two bundles on requests of A's ids: ``config.load`` candidates, and top-k.

    Args:
        a: Folder of bundle A.
        b: Folder of bundle B.
        config: Settings; a round lasts a quarter of ``seconds``.
        progress: Called with a line of text before each round.
        clock: Clock that times the requests; for tests.

    Returns:
        One ratio per shape of request, and how noisy the machine was.

    Raises:
        BundleError: If a bundle can't be opened.
    """
    meter, paths = NoiseMeter(), (Path(a), Path(b))
    bundle, _ = [Bundle.open(path) for path in paths]
    requests = Requests(ItemIds.from_bundle(bundle), config.pool, config.zipf, config.seed)
    first, second = (BundleSource(path, config.pool // 2) for path in paths)
    seconds = _ROUND_FRACTION * config.seconds
    limits = Limits(seconds, 1, min(config.warmup, seconds))
    with first.open() as system:
        lab = Lab(first, system, requests, config)
        shapes = {shape.label: shape for shape in (lab.load, lab.top_k(requests))}
    ratios = [
        compare(
            first,
            second,
            name,
            shape.requests,
            limits,
            config.seed,
            progress=progress,
            clock=clock,
        )
        for name, shape in shapes.items()
    ]
    return ratios, meter.stop()


def compare(
    a: Source,
    b: Source,
    shape: str,
    requests: Sequence[Request],
    limits: Limits,
    seed: int = 0,
    *,
    rounds: int = ROUNDS,
    progress: Callable[[str], None] = lambda line: None,
    clock: Clock = WALL,
) -> Ratio:
    """Time two systems on the same requests; each of ``rounds`` lasts ``limits.seconds``.

    Raises ValueError if there are too few rounds for an interval.
    """
    interval = ordered_interval(rounds, _CONFIDENCE)
    if interval is None:
        raise ValueError(f"rounds = {rounds}: an interval at {_CONFIDENCE:.0%} needs at least 6")
    rng = np.random.default_rng([seed, 2])
    measured = []
    for number in range(rounds):
        progress(f"{shape}: round {number + 1} of {rounds}")
        # A and B take turns in being opened and called first, so what that does cancels out.
        swapped = number % 2 == 1
        with ExitStack() as stack:
            first, second = (
                caller(stack.enter_context(source.open()), requests)
                for source in ((b, a) if swapped else (a, b))
            )
            found = _round(first, second, len(requests), limits, rng, clock)
        measured.append(_Round(1 / found.ratio, found.b_us, found.a_us) if swapped else found)
    ratios = sorted(found.ratio for found in measured)
    skipped, confidence = interval
    return Ratio(
        shape=shape,
        ratio=statistics.median(ratios),
        low=ratios[skipped],
        high=ratios[-1 - skipped],
        confidence=confidence,
        rounds=tuple(found.ratio for found in measured),
        a_us=statistics.median(found.a_us for found in measured),
        b_us=statistics.median(found.b_us for found in measured),
    )


def ordered_interval(n: int, confidence: float) -> tuple[int, float] | None:
    """Return how many of n ordered values to skip at either end for an interval of their median.

    The second value is the confidence that this gives, at least ``confidence``. None if n is too
    small for it.
    """
    cdf = binomial_cdf(n, 0.5)
    fitting = [k for k in range((n + 1) // 2) if 1 - 2 * cdf[k] >= confidence]
    return (fitting[-1], float(1 - 2 * cdf[fitting[-1]])) if fitting else None


def _round(
    a: Call, b: Call, pool: int, limits: Limits, rng: np.random.Generator, clock: Clock
) -> _Round:
    """Send every request of the pool to both, in random order, for ``limits.seconds``."""
    calls, durations, orders = (a, b), (array("q"), array("q")), array("b")
    for call in calls:
        at = warm_up(call, pool, limits.warmup / 2, clock)
    order = _random_order(rng, pool)
    now = clock.now()
    min_end, max_end = limits.ends(now)
    while now < max_end and (now < min_end or len(orders) < limits.min_queries):
        at = (at + 1) % pool
        if at == 0:
            order = _random_order(rng, pool)
        first = order[at]
        call_first, call_second = calls[first], calls[1 - first]
        start = clock.now()
        call_first(at)
        between = clock.now()
        call_second(at)
        now = clock.now()
        durations[first].append(between - start)
        durations[1 - first].append(now - between)
        orders.append(first)
    times_a, times_b = (np.asarray(times, np.float64) for times in durations)
    logs, b_was_first = np.log(times_b / times_a), np.asarray(orders, bool)
    # The second system finds the caches warm: the two orders are two distributions, and the ratio
    # is the mean of their medians.
    medians = [
        float(np.median(part)) for part in (logs[~b_was_first], logs[b_was_first]) if len(part)
    ]
    return _Round(
        ratio=math.exp(statistics.fmean(medians)),
        a_us=float(np.median(times_a)) / 1000,
        b_us=float(np.median(times_b)) / 1000,
    )


def _random_order(rng: np.random.Generator, pool: int) -> list[int]:
    """Return for each request the number of the system that gets it first."""
    order: list[int] = (rng.random(pool) >= 0.5).astype(int).tolist()
    return order
