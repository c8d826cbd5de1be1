"""Read JSON lines, or one JSON array of objects, as rows of texts."""

from __future__ import annotations

import io
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tlrec_edge.core.strict_json import check_texts, unique_keys
from tlrec_edge.errors import DataError
from tlrec_edge.tabular.chunk import Chunk


def read_json(text: io.TextIOWrapper, path: Path, rows: int) -> Iterator[Chunk]:
    """Yield the records in chunks of ``rows``. Raises DataError, which names the line."""
    records: list[dict[str, Any]] = []
    for line, record in _json_records(text, path):
        if not isinstance(record, dict):
            raise DataError(
                f"{path}: line {line} is not an object; expected JSON lines such as "
                '{"user": "u1", "item": "i1"}'
            )
        records.append(record)
        if len(records) == rows:
            yield _json_chunk(records)
            records = []
    if records:
        yield _json_chunk(records)


def _json_records(text: io.TextIOWrapper, path: Path) -> Iterator[tuple[int, Any]]:
    line = 0
    try:
        start = text.read(1)
        while start and not start.strip("\ufeff \t\r\n"):
            start = text.read(1)
        if start == "[":
            yield from ((1, record) for record in _parse(start + text.read()))
            return
        for line, content in enumerate(_prepend(start, text), 1):
            if content.strip():
                yield line, _parse(content)
    except UnicodeDecodeError:
        raise  # a wrong encoding is not the fault of the JSON
    except (ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: line {max(line, 1)} is not valid JSON ({error}); expected one object a line"
        ) from error


def _parse(text: str) -> Any:
    """Decode JSON; NaN is a missing value. Raises ValueError, also for half of a character."""
    value = _DECODER.decode(text.strip())
    check_texts(value, text)
    return value


_DECODER = json.JSONDecoder(object_pairs_hook=unique_keys, parse_constant=lambda constant: None)


def _prepend(start: str, lines: Iterable[str]) -> Iterator[str]:
    for line in lines:
        yield start + line
        start = ""


def _json_chunk(records: Sequence[Mapping[str, Any]]) -> Chunk:
    names = dict.fromkeys(name for record in records for name in record)
    columns = {name: [_json_text(record.get(name)) for record in records] for name in names}
    return Chunk(columns, len(records))


def _json_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, (dict, list)):
        return json.dumps(value, ensure_ascii=False)
    return str(value)
