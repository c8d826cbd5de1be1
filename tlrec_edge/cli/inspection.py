"""The commands inspect and verify: what a bundle holds, and whether its files are sound."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click

from tlrec_edge.bundle.reader import Bundle, manifest_size
from tlrec_edge.cli.common import announce_if_slow, bundle_argument, json_option
from tlrec_edge.cli.format import any_value, print_table
from tlrec_edge.cli.output import say, say_json
from tlrec_edge.cli.progress import quiet_option
from tlrec_edge.runtime.recommender import Recommender

_COMPRESSION = ("budget", "chosen", "judged_on", "bytes", "original_bytes", "test")
"""What ``inspect`` shows of the compression card; the table of all points is in its JSON."""
_SLOW_TO_HASH = 1_000_000_000
"""Bytes above which hashing a bundle takes more than about two seconds."""


@click.command(short_help="Show the cards, sizes and hashes of a bundle.")
@bundle_argument
@quiet_option
@json_option
def inspect(bundle: Path, as_json: bool) -> None:
    """Show the cards of BUNDLE, and the sizes and hashes of its files."""
    opened = Bundle.open(bundle)
    identities = {"content_id": opened.content_id, "manifest_sha256": opened.manifest_sha256}
    if as_json:
        say_json(opened.manifest | identities)
        return
    manifest, shape = opened.manifest, opened.shape
    model = manifest["model"]
    written = f"{manifest.get('created')} by tlrec-edge {manifest.get('tlrec_edge')}"
    rows = [
        ["written", f"{written}, format {manifest['format']}"],
        ["model", f"{model.get('size')}, {model.get('mode')}, tables {shape.tables}"],
        ["items", f"{shape.items:,}, of which {shape.candidates:,} candidates"],
        ["vectors", f"{shape.d} deep + {shape.r} interest, history of {shape.length}"],
        ["content id", opened.content_id],
        ["manifest sha256", opened.manifest_sha256],
    ]
    print_table(["", ""], rows, str(bundle))
    for card in ("quality", "transfer", "latency", "index", "parity", "gates", "provenance"):
        if manifest.get(card):
            _print_card(card, manifest[card])
    compression = manifest.get("compression") or {}
    if compression:
        _print_card("compression", {name: compression.get(name) for name in _COMPRESSION})
    files = manifest["files"]
    rows = [[name, f"{entry['size']:,}", entry["sha256"][:16]] for name, entry in files.items()]
    total = sum(entry["size"] for entry in files.values())
    print_table(["file", "bytes", "sha256"], [*rows, ["total", f"{total:,}", ""]], "files")


@click.command(short_help="Check every file of a bundle.")
@bundle_argument
@click.option(
    "--expect",
    metavar="ID",
    help="Content id that the bundle must have, as `inspect` prints it.  [default: any]",
)
@quiet_option
@json_option
def verify(bundle: Path, expect: str | None, as_json: bool) -> None:
    """Check BUNDLE: hash every file, check its arrays and load its graphs."""
    size = sum(file.stat().st_size for file in bundle.iterdir()) if bundle.is_dir() else 0
    announce_if_slow("hashing", size, _SLOW_TO_HASH)
    with Recommender.open(bundle, verify="full", expect=expect) as opened:
        files = opened.manifest["files"]
    size = sum(entry["size"] for entry in files.values()) + manifest_size(bundle)
    if as_json:
        say_json({"ok": True, "files": len(files), "bytes": size})
    else:
        say(f"ok: {len(files)} files, {size:,} bytes match the manifest")


def _print_card(title: str, card: Any) -> None:
    """Print a card as a table of names and values, and each list of records in it as a table."""
    values, records = [], []
    for key, value in _flat(card) if isinstance(card, dict) else [("", card)]:
        if isinstance(value, list) and value and all(isinstance(row, dict) for row in value):
            records.append((key, value))
        else:
            values.append([key, any_value(value)])
    if values:
        print_table(["", ""], values, title)
    for key, rows in records:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        cells = [[any_value(row.get(name)) for name in columns] for row in rows]
        print_table(columns, cells, f"{title}: {key}")


def _flat(card: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in card.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value
