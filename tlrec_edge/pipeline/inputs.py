"""The arguments of the steps: objects, or the folders that hold them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TypeVar

from tlrec_edge.data.dataset import Dataset
from tlrec_edge.data.store import load_dataset
from tlrec_edge.errors import ArgumentError
from tlrec_edge.tabular.roles import suggestion
from tlrec_edge.train.edge_model import EdgeModel

StrPath = str | os.PathLike[str]
"""A path, as text or as an object."""
Domains = str | Sequence[str]
"""One domain or several."""
Config = TypeVar("Config")
_MAX_SHOWN = 30


def open_dataset(dataset: Dataset | StrPath) -> Dataset:
    """Return a dataset, or read its folder. Raises ArgumentError if it is neither."""
    if isinstance(dataset, Dataset):
        return dataset
    remedy = "a Dataset or its folder; `Dataset.from_frames` makes one of data frames"
    return load_dataset(folder_of(dataset, "dataset", remedy))


def open_model(
    model: EdgeModel | StrPath, name: str = "model", before_refit: bool = False
) -> EdgeModel:
    """Return a model, or read its folder, if wanted with the model ``before_refit``.

    Raises ArgumentError if it is neither.
    """
    if isinstance(model, EdgeModel):
        return model
    return EdgeModel.load(folder_of(model, name, "a model or its folder"), before_refit)


def folder_of(value: object, name: str, expected: str) -> Path:
    """Return a folder as a path. Raises ArgumentError if the value is not a path."""
    if not isinstance(value, str | os.PathLike):
        raise ArgumentError(f"{name} is of type {type(value).__name__}, expected {expected}")
    return Path(value)


def optional_path(value: StrPath | None) -> Path | None:
    """Return a path, or None for None."""
    return None if value is None else Path(value)


def check_config(config: Config | None, kind: type[Config]) -> Config | None:
    """Return a config. Raises ArgumentError if it is of another type."""
    if config is not None and not isinstance(config, kind):
        raise ArgumentError(
            f"config is of type {type(config).__name__}, expected {kind.__name__}(...) or None"
        )
    return config


def choose_domains(dataset: Dataset, domains: Domains | None) -> tuple[str, ...]:
    """Return domains in the dataset's order; None is the only domain.

    Raises ArgumentError if one is unknown, or if none is given and the dataset has several.
    """
    known = dataset.domains
    shown = ", ".join(known[:_MAX_SHOWN])
    if domains is None:
        if len(known) > 1:
            raise ArgumentError(f"the dataset has {len(known)} domains: choose one of {shown}")
        return known
    if not isinstance(domains, str | Sequence):
        raise ArgumentError(f"domain is of type {type(domains).__name__}, expected one of {shown}")
    names = (domains,) if isinstance(domains, str) else tuple(domains)
    for name in names:
        if name not in known:
            similar = suggestion(str(name), known)
            raise ArgumentError(f"unknown domain {name!r:.80}; known: {shown}{similar}")
    return tuple(name for name in known if name in names)
