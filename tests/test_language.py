"""The language of the project: the field's terms in names, plain English in what people read."""

from __future__ import annotations

import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers.paths import ROOT

PACKAGE = [
    path
    for folder in ("tlrec_edge", "export", "quantize")
    for path in (ROOT / folder).rglob("*.py")
]
PROSE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")]
PROSE += sorted((ROOT / "docs").glob("*.md"))
COINAGES = {
    *("asked", "bill", "carried", "contest", "draft", "hears", "knobs", "lifted", "places"),
    *("questions", "rivals", "shelf", "sieve", "stacked", "stranger", "told", "turned", "whom"),
}
"""Words that names once used in place of the field's terms; `docs/glossary.md` has the terms."""
ATTENTION_HEADS = {"prune_heads", "prune_head_width"}
BETTER = "longer|more|less|better|worse|slower|faster|larger|smaller|such"
UNNATURAL = {
    r"\bwhere\b": "if, when, in which or whose",
    rf"\b(is|are) no (?!({BETTER})\b)[a-z]+": "is not a ...",
    r"\bwhom\b": "who",
    r"\bas given\b": "original",
    r"\bknobs?\b": "hyperparameter or option",
    r"\b(bundle|file|it|manifest|model|system|that|which) (hears|tells)\b": "says or receives",
}
"""Patterns that the prose may not contain, and what to write instead."""
THERE_IS_NO = re.compile(r"\bthere (is|are) no\b", re.IGNORECASE)


def names(path: Path) -> Iterator[tuple[str, int]]:
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type == tokenize.NAME:
            yield token.string, token.start[0]


def words(name: str) -> set[str]:
    return set(re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name).lower().split("_"))


def prose(path: Path) -> Iterator[tuple[str, int]]:
    """Yield what people read in a file: docstrings, messages, help and comments."""
    if path.suffix == ".md":
        yield from (
            # Code is not prose: an operator of ONNX has the name Where.
            (re.sub(r"`[^`]*`", "", line), number)
            for number, line in enumerate(path.read_text("utf-8").splitlines(), 1)
        )
        return
    for token in tokenize.generate_tokens(io.StringIO(path.read_text("utf-8")).readline):
        if token.type in (tokenize.STRING, tokenize.COMMENT):
            yield token.string, token.start[0]


def test_names_are_the_terms_of_the_field() -> None:
    found = []
    for path in PACKAGE:
        place = path.relative_to(ROOT).as_posix()
        about_attention = "attention" in path.read_text("utf-8").lower()
        for name, line in names(path):
            if coined := words(name) & COINAGES:
                found.append(f"{place}:{line}: {name} ({', '.join(coined)})")
            if "heads" in words(name) and name not in ATTENTION_HEADS and not about_attention:
                found.append(f"{place}:{line}: {name} (heads are attention heads)")
    assert not found, "\n".join(found)


@pytest.mark.parametrize("pattern", UNNATURAL)
def test_sentences_are_plain_english(pattern: str) -> None:
    found = [
        f"{path.relative_to(ROOT)}:{line}: {match.group()!r}: write {UNNATURAL[pattern]}"
        for path in [*PACKAGE, *PROSE]
        for text, line in prose(path)
        for match in re.finditer(pattern, THERE_IS_NO.sub("without", text), re.IGNORECASE)
    ]
    assert not found, "\n".join(found)


def test_lines_are_short_and_the_formatter_has_every_one() -> None:
    sources = [*PACKAGE, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").rglob("*.py")]
    for path in sources:
        text = path.read_text("utf-8")
        assert "fmt: " + "skip" not in text, path
        assert "fmt: " + "off" not in text, path
