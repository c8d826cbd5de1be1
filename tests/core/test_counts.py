"""A count has its noun in the singular or the plural."""

from __future__ import annotations

from tlrec_edge.core.counts import counted


def test_one_is_singular_and_all_else_is_plural() -> None:
    assert [counted(n, "row") for n in (0, 1, 2_000)] == ["0 rows", "1 row", "2,000 rows"]
    assert counted(1, "row has", "rows have") == "1 row has"
    assert counted(3, "row has", "rows have") == "3 rows have"
