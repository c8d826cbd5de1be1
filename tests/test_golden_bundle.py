"""Every later version must read the golden bundle and give exactly the same scores."""

from __future__ import annotations

import pytest

import check_golden
import make_golden_bundle as golden
from tlrec_edge import Recommender
from tlrec_edge.bundle.reader import Bundle

PINNED = check_golden.read_cases()


def test_the_bundle_passes_full_verification() -> None:
    bundle = Bundle.open(check_golden.BUNDLE, verify="full")
    names = bundle.strings("category_names").take(bundle.array("item_category")[1:4])
    assert names == ["Küche", "Garten", "玩具"]


@pytest.mark.parametrize("name", PINNED["cases"])
def test_scores_are_pinned_bit_for_bit(name: str) -> None:
    case, items = PINNED["cases"][name], PINNED["items"]
    with Recommender.open(check_golden.BUNDLE) as rec:
        assert rec.deterministic
        assert check_golden.score(rec, case, items) == case["scores"]
        ranked = rec.recommend(check_golden.user_of(case), len(items), exclude=None)
        expected = {
            item: float.fromhex(value) for item, value in zip(items, case["scores"], strict=True)
        }
        assert dict(zip(ranked.items, ranked.scores.tolist(), strict=True)) == expected


def test_no_score_depends_on_the_last_bit_of_the_encoder() -> None:
    assert golden.rounding_margin() >= golden.MARGIN


def test_the_script_for_empty_environments(capsys: pytest.CaptureFixture[str]) -> None:
    check_golden.main()
    assert "8 cases, the same bits" in capsys.readouterr().out
