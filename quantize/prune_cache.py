"""Pruned models cached in a folder, so that an interrupted search can resume."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from tlrec_edge.core.folders import check_target
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.errors import ModelError
from tlrec_edge.train.edge_model import MODEL, EdgeModel

_KEY = "search.json"


class PruneCache:
    """A folder that holds the model of every finished pruning step; without one nothing is cached.

    The folder belongs to one search: its key file holds a hash of the model, the seed and the
    number of recovery steps. Raises ModelError if the folder holds something else or can't be
    written.
    """

    def __init__(self, folder: Path | None, model: EdgeModel, seed: int, steps: int) -> None:
        self._folder = folder
        if folder is None:
            return
        key = _search_key(model, seed, steps)
        path = folder / _KEY
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file() and any(folder.iterdir()):
                raise ModelError(
                    f"{folder} is not empty and is not the checkpoint of a search: "
                    "choose another folder"
                )
            if path.is_file() and parse_json(path.read_bytes()) != key:
                raise ModelError(
                    f"{folder} is the checkpoint of another model or seed: choose another folder"
                )
            path.write_text(json.dumps(key), "utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ModelError(
                f"{folder} can't be used as a checkpoint ({reason}): choose another folder"
            ) from error

    def get_or_prune(self, name: str, prune: Callable[[], EdgeModel]) -> EdgeModel:
        """Load the model of a pruning step if it is cached; otherwise prune and cache it."""
        if self._folder is None:
            return prune()
        path = self._folder / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        if path.exists():
            try:
                return EdgeModel.load(path)
            except ModelError:  # damaged or of another version: prune again, if it may be replaced
                check_target(path, MODEL)
        pruned = prune()
        pruned.save(path)
        return pruned


def _search_key(model: EdgeModel, seed: int, steps: int) -> dict[str, str]:
    facts = [model.provenance.to_json(), model.net.config.to_json(), seed, steps]
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
    for net in [model.net, *([model.before_refit.net] if model.before_refit else [])]:
        for value in net.state_dict().values():
            digest.update(value.numpy().tobytes())
    return {"model": digest.hexdigest()}
