"""The scenarios of MLPerf Inference; each is a function from a lab to measured rows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial

from tlrec_edge.bench import loadgen
from tlrec_edge.bench.drivers import Call, closed_loop, cold_loop
from tlrec_edge.bench.energy import metered
from tlrec_edge.bench.lab import Lab, Shape, batch_caller, caller
from tlrec_edge.bench.latency import Latencies
from tlrec_edge.bench.loads import Load, capacity, drive
from tlrec_edge.bench.result import Row
from tlrec_edge.bench.system import BundleSystem

Scenario = Callable[[Lab], Iterator[Row]]
UTILISATIONS = (0.1, 0.3, 0.5, 0.7, 0.8, 0.9)
"""Default rates of the server scenario, as fractions of the system's capacity."""


def single_stream(lab: Lab) -> Iterator[Row]:
    """Score n candidates for one user, one request after another.

    Each request encodes its history. Bundles are measured a second time with states that were
    encoded before.
    """
    for shape in lab.shapes():
        if isinstance(lab.system, BundleSystem):
            lab.system.check(shape.requests)
        yield from _one_by_one(lab, "single-stream", shape)


def top_k(lab: Lab) -> Iterator[Row]:
    """Rank the catalogue without the history's own items, one request after another."""
    yield from _one_by_one(lab, "top-k", lab.top_k(lab.requests))


def multi_stream(lab: Lab) -> Iterator[Row]:
    """Send queries of several requests, one after another, each timed to its last answer."""
    shape, query_size = lab.load, lab.config.streams
    latencies = _closed(lab, shape, query_size)
    yield Row("multi-stream", "encoded", f"{query_size} x {shape.label}", shape.scored, latencies)


def server(lab: Lab) -> Iterator[Row]:
    """Send requests with Poisson arrivals at each rate; latency counts from the scheduled time."""
    max_rate = 0.0 if lab.config.qps else capacity(lab)
    rates = lab.config.qps or [utilisation * max_rate for utilisation in UTILISATIONS]
    for rate in rates:
        latencies = _server_run(lab, rate)
        yield Row("server", "encoded", lab.load.label, lab.load.scored, latencies, target_qps=rate)


def offline(lab: Lab) -> Iterator[Row]:
    """Answer all requests as fast as possible, ``batch`` in each call."""
    yield _offline(lab)


SCENARIOS: dict[str, Scenario] = {
    "single-stream": single_stream,
    "top-k": top_k,
    "multi-stream": multi_stream,
    "server": server,
    "offline": offline,
}


def _one_by_one(lab: Lab, name: str, shape: Shape) -> Iterator[Row]:
    shapes, system = {"encoded": shape}, lab.system
    if isinstance(system, BundleSystem):
        states = [system.user_state(request.user) for request in shape.requests]
        shapes["given"] = shape.with_states(states)
    for state, variant in shapes.items():
        yield Row(name, state, variant.label, variant.scored, _closed(lab, variant))
    if isinstance(system, BundleSystem) and lab.config.cache == "cold":
        yield Row(name, "cold", shape.label, shape.scored, _cold(lab, shape))


def _cold(lab: Lab, shape: Shape) -> Latencies:
    """Send requests one after another, each with the bundle read from disk."""
    pool, open_evicted = len(shape.requests), partial(_evicted, lab, shape)
    times = metered(lambda: cold_loop(open_evicted, pool, lab.limits, lab.clock))
    return times.describe(lab.config.confidence)


@contextmanager
def _evicted(lab: Lab, shape: Shape) -> Iterator[Call]:
    """Open the bundle, send one request so that all is loaded, and evict it from the page cache.

    It is opened again each time because Linux reads less ahead the more often a map had to wait for
    a page: the hundredth eviction in a process would cost less than the first.
    """
    with lab.source.open() as system:
        system.answer(shape.requests[-1:])
        if isinstance(system, BundleSystem):
            system.evict()
        yield lambda at: system.answer(shape.requests[at : at + 1])


def _closed(lab: Lab, shape: Shape, query_size: int = 1) -> Latencies:
    """Send queries of ``query_size`` requests one after another."""
    pool, limits, seed = len(shape.requests), lab.limits, lab.config.seed
    if lab.config.driver == "loadgen":
        answer = batch_caller(lab.system, shape.requests)
        if query_size == 1:
            return loadgen.single_stream(answer, pool, limits, seed)
        return loadgen.multi_stream(answer, pool, limits, seed, query_size)
    call = caller(lab.system, shape.requests, query_size)
    times = metered(lambda: closed_loop(call, pool, limits.for_query_size(query_size), lab.clock))
    return replace(times, query_size=query_size).describe(lab.config.confidence)


def _server_run(lab: Lab, rate: float) -> Latencies:
    """Send requests at Poisson times."""
    config, requests = lab.config, lab.load.requests
    if config.driver == "loadgen":
        answer = batch_caller(lab.system, requests)
        return loadgen.server(answer, len(requests), lab.limits, config.seed, rate, config.threads)
    return drive(lab, Load(rate)).describe(config.confidence)


def _offline(lab: Lab) -> Row:
    config, requests = lab.config, lab.load.requests
    if config.driver == "loadgen":
        answer = batch_caller(lab.system, requests)
        latencies = loadgen.offline(
            answer, len(requests), lab.limits, config.seed, config.batch, config.threads
        )
    else:
        latencies = drive(lab, Load(None)).describe(config.confidence)
    return Row("offline", "encoded", lab.load.label, lab.load.scored, latencies)
