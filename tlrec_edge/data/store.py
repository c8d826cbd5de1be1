"""A Dataset as a folder: ``dataset.json`` and Parquet tables, replaced atomically, with hashes."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from tlrec_edge.core.folders import FolderKind, replace_folder
from tlrec_edge.core.opened_folder import OpenedFolder, read_folder
from tlrec_edge.core.result_cache import ResultCache
from tlrec_edge.core.strict_json import parse_json
from tlrec_edge.data.dataset import Dataset, EvalRows, Interactions, ItemTable, Split
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.arrow import parquet_file
from tlrec_edge.tabular.schema import parse_schema

FORMAT = 1
_METADATA_FILE = "dataset.json"
DATASET = FolderKind(
    name="dataset",
    marker=_METADATA_FILE,
    keys=("hash", "tables"),
    files=lambda metadata: [f"{name}.parquet" for name in metadata["tables"]],
    error=DataError,
    advice="pass a folder written by `tlrec-edge prepare`",
    remedy="run prepare again",
)
_DAMAGED = (KeyError, IndexError, TypeError, ValueError, AttributeError, pa.ArrowException)
"""What metadata and tables that do not fit raise when a dataset is built from them."""
_MAX_ROWS_PER_BYTE, _MAX_EXTRA_ROWS = 100, 1 << 24
"""Rows of a table: at most this many for each byte of its file, plus 16 million. Ids and positions
take bytes, so only the -1 of evaluation rows with few negatives come close."""
_SPLIT_FIELDS = ("kind", "refit", "mask_seen", "negatives", "seed")


def save_dataset(dataset: Dataset, path: Path) -> None:
    """Write the dataset to a folder, replacing an older dataset.

    Raises DataError if the folder holds anything else or cannot be written.
    """
    with replace_folder(Path(path), DATASET) as folder:
        _write(dataset, folder)


def load_dataset(path: Path, cache: bool = False) -> Dataset:
    """Read a dataset folder. Raises DataError if it is missing, incomplete, altered or too new.

    With ``cache``, what is fitted on the dataset is stored next to it, in ``PATH.cache``, and
    later calls read it from there instead of fitting it again.
    """
    dataset = read_folder(Path(path), DATASET, _load)
    if not cache:
        return dataset
    resolved = Path(path).resolve()
    return replace(dataset, cache=ResultCache(resolved.with_name(resolved.name + ".cache")))


def _load(folder: OpenedFolder) -> Dataset:
    path, metadata = folder.path, _read_metadata(folder)
    try:
        tables = {name: _read_parquet(folder, f"{name}.parquet") for name in metadata["tables"]}
        dataset = _build_dataset(metadata, tables)
        sha256 = dataset_hash(dataset)
    except _DAMAGED as error:
        raise DataError(f"{path} is incomplete ({error!r:.200}); run prepare again") from error
    if sha256 != metadata["hash"]:
        raise DataError(
            f"{path} was altered after it was written (its hash differs); run prepare again"
        )
    return dataset


def dataset_hash(dataset: Dataset) -> str:
    """Return the sha256 of everything but the cleaning table and the source's name."""
    digest = hashlib.sha256()
    for names in (dataset.users, dataset.items, dataset.domains, dataset.features.name):
        _add_strings(digest, names)
    for name in Interactions.__dataclass_fields__:
        _add_array(digest, getattr(dataset.interactions, name))
    _add_array(digest, dataset.item_domain)
    for group in (dataset.features.text, dataset.features.categorical):
        for column, values in group.items():
            _add_strings(digest, (column, *values))
    for column, numbers in dataset.features.numeric.items():
        _add_strings(digest, (column,))
        one_nan = np.where(
            np.isnan(numbers), np.float32("nan"), numbers
        )  # NaN has many bit patterns
        _add_array(digest, one_nan)
    for column, aliases in dataset.features.aliases.items():
        _add_strings(digest, (column, *aliases, *aliases.values()))
    if dataset.features.by_domain:  # adding nothing if False keeps the hashes of older datasets
        _add_strings(digest, ("by_domain",))
    _add_strings(digest, (split_hash(dataset),))
    return digest.hexdigest()


def split_hash(dataset: Dataset) -> str:
    """Return the sha256 of the split: roles, folds, test rows and settings."""
    split, digest = dataset.split, hashlib.sha256()
    _add_strings(digest, (json.dumps(_split_settings(split), sort_keys=True),))
    _add_array(digest, split.role)
    _add_array(digest, split.fold)
    for rows in (split.rows, split.valid_rows):
        if rows is not None:
            columns = (rows.user, rows.item, rows.negatives, rows.domain)
            for column in columns:
                if column is not None:
                    _add_array(digest, column)
    return digest.hexdigest()


def _split_settings(split: Split) -> dict[str, Any]:
    return {
        **{name: getattr(split, name) for name in _SPLIT_FIELDS},
        "settings": dict(split.settings),
    }


def _add_strings(digest: Any, names: Iterable[str]) -> None:
    encoded = [name.encode() for name in names]
    _add_array(digest, np.array([len(name) for name in encoded], np.int64))
    digest.update(b"".join(encoded))


def _add_array(digest: Any, array: NDArray[Any]) -> None:
    digest.update(f"{array.dtype.str}{array.shape}".encode())
    digest.update(np.ascontiguousarray(array).tobytes())


def _write(dataset: Dataset, folder: Path) -> None:
    log, features, split = dataset.interactions, dataset.features, dataset.split
    tables = {
        "interactions": {
            **{name: getattr(log, name) for name in log.__dataclass_fields__},
            "role": split.role,
        },
        "users": {"id": pa.array(dataset.users, pa.large_string()), "fold": split.fold},
        "items": _item_columns(dataset),
    }
    if split.rows is not None:
        tables["rows"], tables["negatives"] = _eval_row_columns(split.rows)
    if split.valid_rows is not None:
        tables["valid_rows"], tables["valid_negatives"] = _eval_row_columns(split.valid_rows)
    for name, columns in tables.items():
        pq.write_table(
            pa.table({key: pa.array(column) for key, column in columns.items()}),
            folder / f"{name}.parquet",
        )
    metadata = {
        "format": FORMAT,
        "hash": dataset_hash(dataset),
        "split_hash": split_hash(dataset),
        "source": dataset.source,
        "domains": dataset.domains,
        "cleaning": dict(dataset.cleaning),
        "split": _split_settings(split),
        "columns": {
            kind: list(getattr(features, kind)) for kind in ("text", "categorical", "numeric")
        },
        "aliases": {column: dict(names) for column, names in features.aliases.items()},
        "by_domain": features.by_domain,
        "schema": dataset.schema.to_json(),
        "tables": list(tables),
    }
    (folder / _METADATA_FILE).write_text(
        json.dumps(metadata, ensure_ascii=False, indent=2), "utf-8"
    )


def _eval_row_columns(rows: EvalRows) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the columns of the rows' table, and of the table of all their negatives."""
    columns = {"user": rows.user, "item": rows.item}
    if rows.domain is not None:
        columns["domain"] = rows.domain
    return columns, {"item": rows.negatives.ravel()}


def _item_columns(dataset: Dataset) -> dict[str, Any]:
    features = dataset.features
    columns: dict[str, Any] = {"id": dataset.items, "name": features.name}
    # Numbered: columns of two kinds may have the same name, and a name may be any text.
    for kind in ("text", "categorical", "numeric"):
        group: Mapping[str, Any] = getattr(features, kind)
        columns.update({f"{kind}:{i}": values for i, values in enumerate(group.values())})
    strings = {
        name: values if isinstance(values, np.ndarray) else pa.array(values, pa.large_string())
        for name, values in columns.items()
    }
    return {**strings, "domain": dataset.item_domain}


def _read_metadata(folder: OpenedFolder) -> dict[str, Any]:
    try:
        metadata: dict[str, Any] = parse_json(folder.read_marker())
        version = metadata["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{folder.path} is not a dataset (no readable {_METADATA_FILE}): {DATASET.advice}"
        ) from error
    if version != FORMAT:
        raise DataError(
            f"{folder.path} has dataset format {version}, but this version reads {FORMAT}; "
            "run prepare again"
        )
    return metadata


def _read_parquet(folder: OpenedFolder, name: str) -> dict[str, Any]:
    file, found = folder.open(name)
    try:
        with os.fdopen(file, "rb") as opened:
            source = parquet_file(opened)
            _check_rows(folder.path / name, source.metadata.num_rows, found.st_size)
            table = source.read(use_threads=False)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{folder.path / name} is damaged; run prepare again") from error
    return {name: table.column(name) for name in table.column_names}


def _check_rows(path: Path, rows: int, size: int) -> None:
    """Refuse a file that would unfold to a large multiple of its size."""
    if rows > _MAX_ROWS_PER_BYTE * size + _MAX_EXTRA_ROWS:
        raise DataError(f"{path} has {rows:,} rows in {size:,} bytes; run prepare again")


def _build_dataset(metadata: Mapping[str, Any], tables: Mapping[str, Mapping[str, Any]]) -> Dataset:
    log, users, items = tables["interactions"], tables["users"], tables["items"]
    columns = {
        kind: {name: items[f"{kind}:{i}"] for i, name in enumerate(names)}
        for kind, names in metadata["columns"].items()
    }
    split_settings = dict(metadata["split"])
    return Dataset(
        users=tuple(users["id"].to_pylist()),
        items=tuple(items["id"].to_pylist()),
        domains=tuple(metadata["domains"]),
        interactions=Interactions(
            **{name: log[name].to_numpy() for name in Interactions.__dataclass_fields__}
        ),
        features=ItemTable(
            name=tuple(items["name"].to_pylist()),
            text={name: tuple(column.to_pylist()) for name, column in columns["text"].items()},
            categorical={
                name: tuple(column.to_pylist()) for name, column in columns["categorical"].items()
            },
            numeric={name: column.to_numpy() for name, column in columns["numeric"].items()},
            aliases=metadata.get("aliases", {}),
            by_domain=metadata.get("by_domain", False),
        ),
        split=Split(
            role=log["role"].to_numpy(),
            fold=_ints(users["fold"]),
            rows=_eval_rows(tables, "rows", "negatives"),
            valid_rows=_eval_rows(tables, "valid_rows", "valid_negatives"),
            **split_settings,
        ),
        item_domain=_ints(items["domain"]),
        cleaning=metadata["cleaning"],
        source=metadata["source"],
        schema=parse_schema(metadata.get("schema", {})),
    )


def _eval_rows(
    tables: Mapping[str, Mapping[str, Any]], name: str, negatives_name: str
) -> EvalRows | None:
    if name not in tables:
        return None
    rows, negatives = tables[name], _ints(tables[negatives_name]["item"])
    user, item = _ints(rows["user"]), _ints(rows["item"])
    domain = _ints(rows["domain"]) if "domain" in rows else None
    return EvalRows(user, item, negatives.reshape(len(user), -1 if len(user) else 0), domain)


def _ints(column: Any) -> NDArray[np.int32]:
    return np.asarray(column.to_numpy(), np.int32)
