"""All that the commands print. Text from files never reaches a terminal as code."""

from __future__ import annotations

import json
import re
import sys
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.text import Text

_NOT_PRINTABLE = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control codes: a terminal obeys them
    "\u2028\u2029"  # line and paragraph separators
    "\u202a-\u202e\u2066-\u2069"  # overrides of the direction of text, which reorder a line
    "\ud800-\udfff"  # lone surrogates: parts of characters, and bytes of names that are not UTF-8
    "]"
)


def printable(text: str) -> str:
    """Return text that a terminal shows as it is, on one line.

    Other characters are escaped as in a Python string, for example ``\\x1b``.
    """
    return _NOT_PRINTABLE.sub(lambda found: repr(found[0])[1:-1], text)


def plain(text: str) -> Text:
    """Return printable text for rich, which does not read it as markup."""
    from rich.text import Text

    return Text(printable(text))


def say(line: str, err: bool = False) -> None:
    """Print a line to stdout, or to stderr."""
    click.echo(printable(line), err=err)


def say_json(value: Any) -> None:
    """Print a value as one line of JSON."""
    text = json.dumps(value, ensure_ascii=not _is_unicode(sys.stdout))
    # All of these characters are inside strings, in which JSON has escapes of its own.
    click.echo(_NOT_PRINTABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text))


def escape_what_cannot_be_encoded() -> None:
    """Let stdout and stderr escape characters that their encoding lacks, instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure") and not _is_unicode(stream):
            stream.reconfigure(errors="backslashreplace")


def _is_unicode(stream: Any) -> bool:
    encoding = (getattr(stream, "encoding", None) or "").lower().replace("-", "")
    return encoding.startswith("utf")
