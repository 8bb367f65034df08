"""Opt-out, context and variety of a recommended list."""

from __future__ import annotations

import numpy as np
import pytest

from convoy_models.recommend.rerank import Offer, OffersUnknown, Wish, recommend, spread

CATALOGUE = [
    Offer("site-1", "site", "north", frozenset({"commute"})),
    Offer("site-2", "site", "north", frozenset({"commute"})),
    Offer("site-3", "site", "north"),
    Offer("wash", "service", "care", frozenset({"family", "business"})),
    Offer("charge+cover", "bundle", "cover"),
]
SCORES = np.array([1.0, 0.95, 0.9, 0.6, 0.5])
POPULAR = np.array([0.1, 0.2, 0.3, 0.9, 0.4])


def listed(wish: Wish = Wish(), **options: object) -> list[str]:  # noqa: B008
    """Return the ids of the list."""
    return [one.id for one in recommend(CATALOGUE, SCORES, POPULAR, wish, **options)]  # type: ignore[arg-type]


def test_an_opt_out_gives_the_general_list_whatever_is_known() -> None:
    """Personal scores have no influence at all, and the reason says so."""
    first = recommend(CATALOGUE, SCORES, POPULAR, Wish(personal=False), length=3)
    second = recommend(CATALOGUE, SCORES[::-1].copy(), POPULAR, Wish(personal=False), length=3)
    assert first == second
    assert {one.reason for one in first} == {"popular"}
    assert first[0].id == "wash"


def test_context_leaves_out_what_does_not_fit() -> None:
    """A family list has no commuter site; offers without contexts fit everywhere."""
    assert set(listed(Wish(context="family"))) == {"site-3", "wash", "charge+cover"}
    assert "wash" not in listed(Wish(context="commute"))


def test_variety_spreads_the_list_and_zero_keeps_the_order() -> None:
    """Three sites of the north first without variety; with it three groups."""
    groups = {offer.id: offer.group for offer in CATALOGUE}
    plain, varied = listed(length=3, variety=0.0), listed(length=3, variety=0.5)
    assert plain == ["site-1", "site-2", "site-3"]
    assert spread(varied, groups) == 1.0 > spread(plain, groups)
    assert varied[0] == "site-1"


def test_used_offers_are_left_out_and_a_bad_list_is_refused() -> None:
    """Nothing is recommended twice; NaN never ranks."""
    assert "site-1" not in listed(used={"site-1"})
    with pytest.raises(OffersUnknown):
        recommend(CATALOGUE, np.full(5, np.nan), POPULAR, Wish())
    with pytest.raises(OffersUnknown):
        recommend(CATALOGUE, SCORES[:2], POPULAR, Wish())
