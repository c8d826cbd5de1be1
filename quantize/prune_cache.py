"""Pruned models cached on disk, so that an interrupted search can resume."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from pathlib import Path

from tlrec_edge.core.folders import check_target
from tlrec_edge.errors import ModelError
from tlrec_edge.train.edge_model import MODEL, EdgeModel

_KEY = "search.json"


class PruneCache:
    """A folder with the model of every finished pruning step; without a folder nothing is cached."""

    def __init__(self, folder: Path | None, model: EdgeModel, seed: int, steps: int) -> None:
        self._folder = folder
        if folder is None:
            return
        facts = [model.provenance.to_json(), model.net.config.to_json(), seed, steps]
        weights = hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode())
        for value in model.net.state_dict().values():
            weights.update(value.numpy().tobytes())
        key = {"model": weights.hexdigest()}
        path = folder / _KEY
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if not path.is_file() and any(folder.iterdir()):
                raise ModelError(
                    f"{folder} is not empty and holds no search: choose another folder"
                )
            if path.is_file() and json.loads(path.read_text("utf-8")) != key:
                raise ModelError(
                    f"{folder} holds the search of another model or seed: choose another folder"
                )
            path.write_text(json.dumps(key), "utf-8")
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise ModelError(
                f"{folder} cannot hold a search ({reason}): choose another folder"
            ) from error

    def get_or_prune(self, name: str, make: Callable[[], EdgeModel]) -> EdgeModel:
        """Return the model of a pruning step: load it if it was made before, else make it."""
        if self._folder is None:
            return make()
        path = self._folder / re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")
        if path.exists():
            try:
                return EdgeModel.load(path)
            except ModelError:  # damaged, or of another version: prune again, if it may be replaced
                check_target(path, MODEL)
        made = make()
        made.save(path)
        return made
