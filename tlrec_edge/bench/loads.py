"""Put a system under load, in this process or in several at once."""

from __future__ import annotations

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


@dataclass(frozen=True)
class Load:
    """Requests at Poisson times, ``qps`` a second, or as fast as they are answered where it is None."""

    qps: float | None


def drive(lab: Lab, load: Load, stop: StopCondition | None = None) -> Times:
    """Return what the lab's processes and threads saw of a load; each process gets an equal part of the rate.

    ``stop`` is not asked where there are several processes.
    """
    if lab.config.processes > 1:
        return metered(lambda: _in_processes(lab, load))
    return metered(
        lambda: _run(lab.system, lab.load.requests, load, lab.config, lab.limits, stop, lab.clock)
    )


def capacity(lab: Lab) -> float:
    """Return how many requests a second the lab's processes and threads answer, one in a call, when never idle."""
    return (
        drive(replace(lab, config=replace(lab.config, batch=1)), Load(None))
        .describe(lab.config.confidence)
        .qps
    )


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
        call, calls = caller(system, requests, config.batch), limits.for_query_size(config.batch)
        return replace(
            saturated_loop(call, len(requests), calls, config.threads, clock),
            query_size=config.batch,
        )
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
    source: Source
    requests: Sequence[Request]
    load: Load
    config: BenchConfig
    limits: Limits


def _in_processes(lab: Lab, load: Load) -> Times:
    """Split a Poisson stream at random over equal processes: each part is a Poisson stream of its own."""
    n, context = lab.config.processes, get_context("spawn")
    part = Load(None if load.qps is None else load.qps / n)
    start = context.Barrier(n)
    with ExitStack() as stack, single_threaded():
        ends = []
        for number in range(n):
            config = replace(lab.config, seed=lab.config.seed + 7919 * number)
            receiver, sender = context.Pipe(duplex=False)
            job = _Job(lab.source, lab.load.requests, part, config, lab.limits)
            process = context.Process(target=_work, args=(job, start, sender), daemon=True)
            process.start()
            sender.close()
            stack.push(_join_or_terminate(process))
            stack.enter_context(receiver)
            ends.append(receiver)
        results = [_receive(end) for end in ends]
    # One that waited in vain for the others has nothing to tell.
    for error in sorted(
        (e for e in results if isinstance(e, TlrecError)),
        key=lambda e: isinstance(e, _StartAborted),
    ):
        raise error
    return merge(times for times in results if isinstance(times, Times))


def _join_or_terminate(process: SpawnProcess) -> Callable[[object, object, object], None]:
    """Return an exit that waits for a process, or ends it where there was an error or Ctrl-C."""

    def end(kind: object, error: object, where: object) -> None:
        if error is not None:
            process.terminate()
        process.join()

    return end


class _StartAborted(BundleError):
    """Another process of the run did not get as far as its start."""


def _receive(end: Connection) -> Times | TlrecError:
    try:
        received: Any = end.recv()
    except EOFError:
        return BundleError(
            "a process of the run ended without a word; is there memory for all of them?"
        )
    result: Times | TlrecError = received
    return result


def _work(job: _Job, start: Barrier, end: Connection) -> None:
    """Run in a process of its own: open, warm up, wait for the others, run, and send back what was seen."""
    try:
        with job.source.open() as system:
            caller(system, job.requests)(0)
            start.wait(_START_TIMEOUT)
            times = _run(system, job.requests, job.load, job.config, job.limits)
            end.send(replace(times, pss_bytes=memory_rollup().get("pss_bytes")))
    except KeyboardInterrupt:
        start.abort()  # whoever started this process says so
    except BrokenBarrierError:
        end.send(_StartAborted("another process of the run did not start"))
    except TlrecError as error:
        start.abort()
        end.send(error)
    except BaseException:
        start.abort()  # the others would wait for this one
        raise
