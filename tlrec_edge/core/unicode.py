r"""Refuse half a character (a lone surrogate), as JSON's "\ud800": no file can hold it."""

from __future__ import annotations


def check_text(text: str) -> None:
    """Raise ValueError if a text has a lone surrogate, so that it can't be written as UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(not_unicode(error)) from error


def not_unicode(error: UnicodeEncodeError) -> str:
    """Return the message about a text that can't be written as UTF-8."""
    return f"{error.object!r:.80} is not valid Unicode text: it has half a character"
