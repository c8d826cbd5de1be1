"""Fits that can be interrupted: after every epoch all that the next one depends on is on disk, without pickle."""

from __future__ import annotations

import json
import os
import re
import zipfile
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import dataset_hash
from tlrec_edge.errors import ModelError
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.version import VERSION

RUN, STATE = "run.json", "state.json"
_OURS = re.compile(r"epoch-\d+\.npz|state\.(json|new)")


@dataclass
class TrainingState:
    """How far a fit has come. ``modules`` are what learns; ``best`` is the best epoch, ``best_net`` the net then."""

    modules: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator
    losses: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    best: int = 0
    best_net: dict[str, Tensor] = field(default_factory=dict)
    report: dict[str, float] = field(default_factory=dict)

    def arrays(self) -> dict[str, np.ndarray[Any, Any]]:
        """Return views of all tensors, to be written at once: copies would double the memory of a fit."""
        found: dict[str, Tensor] = {"torch": torch.get_rng_state()}
        found |= {f"module.{name}": value for name, value in self.modules.state_dict().items()}
        found |= {f"best.{name}": value for name, value in self.best_net.items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            found |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        return {name: value.numpy() for name, value in found.items()}

    def meta(self) -> dict[str, Any]:
        shown = {name: getattr(self, name) for name in ("losses", "values", "best", "report")}
        return {**shown, "numpy": self.rng.bit_generator.state}

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, np.ndarray[Any, Any]]) -> None:
        """Take over what ``meta`` and ``arrays`` held; torch's own generator is set as well."""
        parts: dict[str, dict[str, Tensor]] = {
            "module": {},
            "best": {},
            "optimizer": {},
            "torch": {},
        }
        for name, array in arrays.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = torch.from_numpy(array)
        self.modules.load_state_dict(parts["module"])
        state: dict[int, dict[str, Tensor]] = {}
        for name, value in parts["optimizer"].items():
            number, _, rest = name.partition(".")
            state.setdefault(int(number), {})[rest] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": state})
        self.best_net = parts["best"]
        self.losses, self.values = list(meta["losses"]), list(meta["values"])
        self.best, self.report = int(meta["best"]), dict(meta["report"])
        self.rng.bit_generator.state = meta["numpy"]
        torch.set_rng_state(parts["torch"][""])


class Checkpoint:
    """The fits of one run, in the order they are made: each has a folder, whose ``state.json`` names its arrays."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fits = folder, 0

    def next_fit(self) -> FitCheckpoint:
        """Return the place of the run's next fit; a run repeats its fits in the same order."""
        self.fits += 1
        return FitCheckpoint(self.folder / f"fit-{self.fits}")


@dataclass(frozen=True)
class FitCheckpoint:
    """One fit's place on disk."""

    folder: Path

    def load(self, state: TrainingState) -> None:
        """Bring a fresh state to where it was left; nothing happens where nothing was left.

        Raises ModelError that names the folder where its files are damaged.
        """
        if not (self.folder / STATE).is_file():
            return
        try:
            meta = json.loads((self.folder / STATE).read_text("utf-8"))
            with np.load(self.folder / meta["arrays"], allow_pickle=False) as stored:
                state.restore(meta, {name: stored[name] for name in stored.files})
        except (
            OSError,
            EOFError,
            zipfile.BadZipFile,
            ValueError,
            KeyError,
            TypeError,
            RuntimeError,
        ) as error:
            raise ModelError(
                f"{self.folder} cannot be read as a checkpoint ({error}): remove it"
            ) from error

    def save(self, state: TrainingState) -> None:
        """Write the arrays, then the small file that names them; a crash leaves the epoch before."""
        arrays = f"epoch-{len(state.losses)}.npz"
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / arrays).open("wb") as file:
            np.savez(file, **state.arrays())  # type: ignore[arg-type]  # its stub takes no mapping of arrays
            file.flush()
            os.fsync(file.fileno())
        write_json(self.folder / STATE, {**state.meta(), "arrays": arrays})
        self._remove(keep=(STATE, arrays))

    def _remove(self, keep: Collection[str] = ()) -> None:
        """Remove the files that ``save`` wrote, but for those in ``keep``; others may have put files here too."""
        for file in self.folder.iterdir():
            if _OURS.fullmatch(file.name) and file.name not in keep:
                file.unlink()

    def remove(self) -> None:
        """Remove the fit's files, and its folder if nothing else is in it."""
        self._remove()
        with suppress(OSError):
            self.folder.rmdir()


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a file in one step."""
    temporary = path.with_suffix(".new")
    with temporary.open("w", encoding="utf-8") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    os.replace(temporary, path)


@contextmanager
def resumable(
    folder: Path | None, dataset: Dataset, config: TrainConfig, **task: object
) -> Iterator[Checkpoint | None]:
    """Yield the checkpoint of a run; the run that left one at ``folder`` goes on from there.

    It is removed when the block ends well. ``task`` are further facts, of JSON types, that make a run what it is.
    Raises ModelError where the folder holds another run, naming what differs, or something else.
    """
    if folder is None:
        yield None
        return
    facts = {
        "version": VERSION,
        "torch": torch.__version__,
        "dataset": dataset_hash(dataset),
        **task,
        **asdict(config),
    }
    _claim(folder, json.loads(json.dumps(facts)))
    yield Checkpoint(folder)
    for fit in folder.glob("fit-*"):
        if re.fullmatch(r"fit-\d+", fit.name) and fit.is_dir():
            FitCheckpoint(fit).remove()
    (folder / RUN).unlink()
    with suppress(OSError):  # somebody put something else there
        folder.rmdir()


def _claim(folder: Path, facts: dict[str, Any]) -> None:
    file = folder / RUN
    if not file.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ModelError(f"{folder} exists and is no checkpoint: choose another --checkpoint")
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, facts)
        return
    try:
        before = dict(json.loads(file.read_text("utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{file} cannot be read ({error}): remove the checkpoint") from error
    for name in (*facts, *before):
        if before.get(name) != facts.get(name):
            raise ModelError(
                f"{folder} is the checkpoint of another run: {name} was {_short(before.get(name))}, "
                f"is {_short(facts.get(name))}; remove it or choose another --checkpoint"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
