"""Put a system under load, from this process or from several at once."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from multiprocessing import get_context
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError
from typing import Any

from tlrec_edge.bench.clock import WALL, Clock
from tlrec_edge.bench.config import BenchConfig
from tlrec_edge.bench.drivers import Limits, StopCondition, open_loop, poisson, saturated_loop
from tlrec_edge.bench.energy import metered
from tlrec_edge.bench.lab import Lab, caller
from tlrec_edge.bench.latency import Times, merge
from tlrec_edge.bench.system import Request, Source, System
from tlrec_edge.core.parallel import single_threaded
from tlrec_edge.errors import BundleError, TlrecError
from tlrec_edge.runtime.state_cache import memory_rollup

_START_TIMEOUT = 120.0
_SEED_STEP = 7919
"""Prime step between the processes' seeds: runs with nearby seeds have no seed in common."""


@dataclass(frozen=True)
class Load:
    """A load on a system."""

    qps: float | None
    """Rate of Poisson arrivals; None sends requests as fast as they are answered."""


def drive(lab: Lab, load: Load, stop: StopCondition | None = None) -> Times:
    """Put the lab's processes and threads under load; each process gets an equal part of the rate.

    ``stop`` is ignored if there are several processes.
    """
    if lab.config.processes > 1:
        return metered(lambda: _in_processes(lab, load))
    return metered(
        lambda: _run(lab.system, lab.load.requests, load, lab.config, lab.limits, stop, lab.clock)
    )


def capacity(lab: Lab) -> float:
    """Return the throughput of the lab's processes and threads with one request in each call."""
    one_in_a_call = replace(lab, config=replace(lab.config, batch=1))
    return drive(one_in_a_call, Load(None)).describe(lab.config.confidence).qps


def _run(
    system: System,
    requests: Sequence[Request],
    load: Load,
    config: BenchConfig,
    limits: Limits,
    stop: StopCondition | None = None,
    clock: Clock = WALL,
) -> Times:
    if load.qps is None:
        call, call_limits = (
            caller(system, requests, config.batch),
            limits.for_query_size(config.batch),
        )
        times = saturated_loop(call, len(requests), call_limits, config.threads, clock)
        return replace(times, query_size=config.batch)
    arrivals = poisson(load.qps, limits, config.seed)
    return open_loop(
        caller(system, requests),
        len(requests),
        arrivals,
        limits,
        threads=config.threads,
        stop=stop,
        clock=clock,
    )


@dataclass(frozen=True)
class _Job:
    """What a process needs to know."""

    source: Source
    requests: Sequence[Request]
    load: Load
    config: BenchConfig
    limits: Limits


def _in_processes(lab: Lab, load: Load) -> Times:
    """Run an equal part of the load in each process.

    Independent Poisson streams of equal parts of a rate add up to a Poisson stream of that rate.
    """
    n, context = lab.config.processes, get_context("spawn")
    part = Load(None if load.qps is None else load.qps / n)
    start = context.Barrier(n)
    with ExitStack() as stack, single_threaded():
        receivers = []
        for number in range(n):
            config = replace(lab.config, seed=lab.config.seed + _SEED_STEP * number)
            receiver, sender = context.Pipe(duplex=False)
            job = _Job(lab.source, lab.load.requests, part, config, lab.limits)
            process = context.Process(target=_work, args=(job, start, sender), daemon=True)
            process.start()
            sender.close()
            stack.push(_join_or_terminate(process))
            stack.enter_context(receiver)
            receivers.append(receiver)
        results = [_receive(receiver) for receiver in receivers]
    errors = [result for result in results if isinstance(result, TlrecError)]
    if errors:
        # A process that only waited for the others doesn't know the cause: prefer another error.
        raise min(errors, key=lambda error: isinstance(error, _StartAborted))
    return merge(times for times in results if isinstance(times, Times))


def _join_or_terminate(process: SpawnProcess) -> Callable[[object, object, object], None]:
    """Return an exit callback that waits for a process, or ends it after an error or Ctrl-C."""

    def leave(kind: object, error: object, trace: object) -> None:
        if error is not None:
            process.terminate()
        process.join()

    return leave


class _StartAborted(BundleError):
    """Another process of the run failed before the common start."""


def _receive(receiver: Connection) -> Times | TlrecError:
    try:
        received: Any = receiver.recv()
    except EOFError:
        return BundleError(
            "a worker exited unexpectedly, possibly out of memory: use fewer --processes"
        )
    result: Times | TlrecError = received
    return result


def _work(job: _Job, start: Barrier, sender: Connection) -> None:
    """Open the system in this process, wait for the others, run, and send the times back.

    Ctrl-C reaches all processes of the run at once. Only the parent handles it: it reports it and
    ends this process.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with job.source.open() as system:
            caller(system, job.requests)(0)
            start.wait(_START_TIMEOUT)
            times = _run(system, job.requests, job.load, job.config, job.limits)
            sender.send(replace(times, pss_bytes=memory_rollup().get("pss_bytes")))
    except BrokenBarrierError:
        sender.send(_StartAborted("another process of the run did not start"))
    except TlrecError as error:
        start.abort()
        sender.send(error)
    except BaseException:
        start.abort()  # otherwise the others would wait for this one
        raise
