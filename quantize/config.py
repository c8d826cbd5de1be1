"""Limits and effort of a compression search."""

from __future__ import annotations

from dataclasses import dataclass, field

from tlrec_edge.choices import MACHINES

from .budget import Budget, Target


@dataclass(frozen=True)
class CompressConfig:
    """Limits and effort of a search.

    Args:
        budget: the share of the original's ranking quality to retain; the lower end of its 95 %
            interval must reach it.
        target: the latency that a request may take on this machine. None: models are rejected
            that take 1.1 times as long as the original, which noise alone would not explain.
        max_bytes: the largest size of the bundle in bytes. None: no limit.
        machine: the machine that will serve the model, "this", "avx2", "avx512-vnni" or "arm64".
            Latency is measured for "this" only; for others the size alone counts.
        minutes: time limit of the search. Pruning steps that it leaves no time for are listed as
            not tried.
        recovery_steps: distillation steps after a pruning step; some steps use a multiple of it.
        seed: the seed of pruning and recovery.
        only: names of the pruning steps to try. None: all that exist for the encoder.

    Raises:
        ValueError: if a value is out of range, or if ``target`` is set for another machine.
    """

    budget: Budget = field(default_factory=Budget)
    target: Target | None = None
    max_bytes: int | None = None
    machine: str = "this"
    minutes: float = 10.0
    recovery_steps: int = 300
    seed: int = 0
    only: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.machine not in MACHINES:
            raise ValueError(f"machine must be one of {', '.join(MACHINES)}, not {self.machine!r}")
        if self.target is not None and self.machine != "this":
            raise ValueError(
                f"latency can be measured on this machine only, not for {self.machine}: "
                "compress on that machine, or set no target"
            )
        if not self.minutes > 0:
            raise ValueError(f"minutes must be above 0, not {self.minutes:g}")
        if self.recovery_steps < 0:
            raise ValueError(f"recovery_steps must be at least 0, not {self.recovery_steps}")
