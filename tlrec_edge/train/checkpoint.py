"""Checkpoints: training that was interrupted continues to the same end, bit for bit.

After every epoch, everything that the next epoch depends on is written to disk, without pickle.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import dataset_hash
from tlrec_edge.errors import ModelError
from tlrec_edge.train.config import TrainConfig
from tlrec_edge.train.npz import DAMAGED, read_arrays
from tlrec_edge.version import VERSION

RUN, STATE = "run.json", "state.json"
_CHECKPOINT_FILE = re.compile(r"epoch-\d+\.npz|state\.(json|new)")
_META = ("losses", "values", "best", "report")
_MAX_SHOWN = 40
"""Characters of a value in an error message."""


@dataclass
class TrainingState:
    """Everything that the next epoch of a fit depends on.

    Attributes:
        modules: What is trained: the network, and an extra loss with parameters if there is one.
        optimizer: The optimizer, with its moments.
        rng: The generator that draws batches; dropout draws from torch's own.
        losses: The mean loss of each epoch.
        values: Validation values, beginning with the one before the first epoch.
        best: The number of the best epoch, 0 for the start.
        best_net: The network's state after the best epoch; empty without validation.
        report: Figures of the extra loss in the last epoch.
    """

    modules: nn.ModuleDict
    optimizer: torch.optim.Optimizer
    rng: np.random.Generator
    losses: list[float] = field(default_factory=list)
    values: list[float] = field(default_factory=list)
    best: int = 0
    best_net: dict[str, Tensor] = field(default_factory=dict)
    report: dict[str, float] = field(default_factory=dict)

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return views of all tensors, to be written at once: copies would double the memory."""
        tensors: dict[str, Tensor] = {"torch": torch.get_rng_state()}
        tensors |= {f"module.{name}": value for name, value in self.modules.state_dict().items()}
        tensors |= {f"best.{name}": value for name, value in self.best_net.items()}
        for number, state in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{number}.{name}": value for name, value in state.items()}
        return {name: value.numpy() for name, value in tensors.items()}

    def meta(self) -> dict[str, Any]:
        """Return everything else, as JSON types."""
        return {
            **{name: getattr(self, name) for name in _META},
            "numpy": self.rng.bit_generator.state,
        }

    def restore(self, meta: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take over a saved state, that of torch's own generator included."""
        parts: dict[str, dict[str, Tensor]] = {
            "module": {},
            "best": {},
            "optimizer": {},
            "torch": {},
        }
        for key, array in arrays.items():
            part, _, name = key.partition(".")
            parts[part][name] = torch.from_numpy(array)
        self.modules.load_state_dict(parts["module"])
        moments: dict[int, dict[str, Tensor]] = {}
        for key, value in parts["optimizer"].items():
            number, _, name = key.partition(".")
            moments.setdefault(int(number), {})[name] = value
        self.optimizer.load_state_dict({**self.optimizer.state_dict(), "state": moments})
        self.best_net = parts["best"]
        self.losses, self.values = list(meta["losses"]), list(meta["values"])
        self.best, self.report = int(meta["best"]), dict(meta["report"])
        # Last, because building the network and the optimizer may have drawn numbers.
        self.rng.bit_generator.state = meta["numpy"]
        torch.set_rng_state(parts["torch"][""])


class Checkpoint:
    """The fits of one run, numbered in the order they are made. Each has a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.fits = folder, 0

    def next_fit(self) -> FitCheckpoint:
        """Return the checkpoint of the next fit; a resumed run makes the same fits in order."""
        self.fits += 1
        return FitCheckpoint(self.folder / f"fit-{self.fits}")


@dataclass(frozen=True)
class FitCheckpoint:
    """The folder of one fit: ``state.json`` names the file of arrays that belongs to it."""

    folder: Path

    def load(self, state: TrainingState) -> None:
        """Restore a new state to the last saved epoch; do nothing if no epoch was saved.

        Raises ModelError if the files are damaged.
        """
        if not (self.folder / STATE).is_file():
            return
        try:
            meta = parse_json((self.folder / STATE).read_bytes())
            with (self.folder / meta["arrays"]).open("rb") as file:
                state.restore(meta, read_arrays(file))
        except DAMAGED as error:
            raise ModelError(
                f"{self.folder} cannot be read as a checkpoint ({error}): remove it"
            ) from error

    def save(self, state: TrainingState) -> None:
        """Write the state of an epoch; a crash in between leaves that of the epoch before.

        The arrays go to a new file first. Only then is the small file that names them replaced,
        which is atomic.
        """
        arrays = f"epoch-{len(state.losses)}.npz"
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / arrays).open("wb") as file:
            np.savez(file, **state.arrays())  # type: ignore[arg-type]  # no mapping in its stub
            file.flush()
            os.fsync(file.fileno())
        write_json(self.folder / STATE, {**state.meta(), "arrays": arrays})
        self._remove_files(keep=(STATE, arrays))

    def _remove_files(self, keep: Collection[str] = ()) -> None:
        """Remove the files that ``save`` wrote; other files in the folder are not ours."""
        for file in self.folder.iterdir():
            if _CHECKPOINT_FILE.fullmatch(file.name) and file.name not in keep:
                file.unlink()

    def remove(self) -> None:
        """Remove the files of the fit, and its folder if it is then empty."""
        self._remove_files()
        with suppress(OSError):
            self.folder.rmdir()


def write_json(path: Path, data: Mapping[str, Any]) -> None:
    """Replace a file atomically."""
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
    """Yield the checkpoint of a run: an empty one, or that of the same run if it was interrupted.

    The checkpoint is removed if the block ends without an exception. None yields None: the run
    saves nothing.

    Args:
        folder: Folder of the checkpoint, or None.
        dataset: The dataset of the run.
        config: The hyperparameters of the run.
        task: Whatever else identifies the run, as JSON types.

    Raises:
        ModelError: The folder holds the checkpoint of another run, or something else.
    """
    if folder is None:
        yield None
        return
    identity = {
        "version": VERSION,
        "torch": torch.__version__,  # other versions may draw other numbers
        "dataset": dataset_hash(dataset),
        **task,
        **asdict(config),
    }
    _claim(folder, json.loads(json.dumps(identity)))
    yield Checkpoint(folder)
    for fit in folder.glob("fit-*"):
        if re.fullmatch(r"fit-\d+", fit.name) and fit.is_dir():
            FitCheckpoint(fit).remove()
    (folder / RUN).unlink()
    with suppress(OSError):  # the folder holds files of someone else
        folder.rmdir()


def _claim(folder: Path, identity: dict[str, Any]) -> None:
    """Write the identity of a run to a new folder, or check it against that of an older run."""
    file = folder / RUN
    if not file.is_file():
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise ModelError(
                f"{folder} exists and is not a checkpoint: choose another --checkpoint"
            )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(file, identity)
        return
    try:
        before = dict(parse_json(file.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ModelError(f"{file} cannot be read ({error}): remove the checkpoint") from error
    for name in (*identity, *before):
        if before.get(name) != identity.get(name):
            raise ModelError(
                f"{folder} is the checkpoint of another run: "
                f"{name} was {_short(before.get(name))}, is {_short(identity.get(name))}; "
                "remove it or choose another --checkpoint"
            )


def _short(value: object) -> str:
    text = json.dumps(value)
    return text if len(text) <= _MAX_SHOWN else f"{text[: _MAX_SHOWN - 3]}..."
