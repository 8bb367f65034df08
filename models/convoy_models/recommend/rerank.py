"""What happens to scores before a person sees them: context, opt-out, variety. Runs at the node.

Order: 1. a person who opted out of personal offers gets the general list (popularity, itself private)
whatever is known about them; 2. offers that do not fit the context (commute, family, business) are
left out; 3. the rest is re-ranked for variety by maximal marginal relevance.

Source: Carbonell & Goldstein 1998 (MMR). Nothing here touches the budget: it is post-processing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import numpy.typing as npt

from convoy_models.errors import ModelsError
from convoy_models.fixedpoint import Floats

Context = Literal["any", "commute", "family", "business"]


class OffersUnknown(ModelsError):
    """An offer, a context or a list that does not fit the catalogue."""

    code = "OFFERS_UNKNOWN"
    fix = "Use the offers and contexts of the signed catalogue."
    fix_zh = "请使用已签署目录中的优惠与场景。"


@dataclass(frozen=True, slots=True)
class Offer:
    """One line of the catalogue.

    ``kind``: charging site, service package, or a bundle of charging and insurance. ``contexts``: where it
    makes sense; empty means everywhere. ``group``: similar offers share it (a quarter of the town, a brand).
    """

    id: str
    kind: Literal["site", "service", "bundle"]
    group: str
    contexts: frozenset[Context] = frozenset()


@dataclass(frozen=True, slots=True)
class Wish:
    """What a person asked for: ``personal`` is False after an opt-out; ``context`` of this moment."""

    personal: bool = True
    context: Context = "any"


@dataclass(frozen=True, slots=True)
class Listed:
    """One recommended offer and why it is there, in a word that the page explains."""

    id: str
    reason: Literal["personal", "popular"]


def recommend(
    catalogue: Sequence[Offer],
    scores: Floats,
    popularity: Floats,
    wish: Wish,
    *,
    length: int = 10,
    variety: float = 0.3,
    used: Collection[str] = (),
) -> tuple[Listed, ...]:
    """Return the list for one person.

    Args:
        catalogue: offers in the order of the scores.
        scores: (items,) of a personal model.
        popularity: (items,) of the released model.
        wish: opt-out and context.
        length: of the list.
        variety: 0 ranks by score alone, 1 by difference alone.
        used: offers to leave out.

    Raises:
        OffersUnknown: lengths differ, numbers are not finite, or variety is outside [0, 1].
    """
    ranked = scores if wish.personal else popularity
    if not (len(catalogue) == scores.size == popularity.size) or not np.isfinite(ranked).all():
        raise OffersUnknown("scores do not fit the catalogue")
    if not 0.0 <= variety <= 1.0 or length < 1:
        raise OffersUnknown("variety must be in [0, 1] and a list must have room")
    fits = np.array([offer.id not in used and _fits(offer, wish.context) for offer in catalogue], dtype=bool)
    chosen = diverse(ranked, [offer.group for offer in catalogue], fits, length, variety)
    reason: Literal["personal", "popular"] = "personal" if wish.personal else "popular"
    return tuple(Listed(catalogue[place].id, reason) for place in chosen)


def diverse(
    scores: Floats, groups: Sequence[str], allowed: npt.NDArray[np.bool_], length: int, variety: float
) -> list[int]:
    """Return positions by maximal marginal relevance; scores are put on [0, 1] among the allowed.

    Similarity of two offers is 1 in the same group and 0 otherwise: the penalty falls on offers whose group is
    in the list already. Ties go to the group that is in the list less often, then to the earlier offer.
    """
    places = np.flatnonzero(allowed)
    if not places.size:
        return []
    low, high = float(scores[places].min()), float(scores[places].max())
    relevance = {int(p): (float(scores[p]) - low) / max(high - low, 1e-12) for p in places}
    chosen: list[int] = []
    count: dict[str, int] = {}
    while relevance and len(chosen) < length:
        best = max(
            relevance,
            key=lambda p: (
                (1 - variety) * relevance[p] - variety * (groups[p] in count),
                -count.get(groups[p], 0),
                -p,
            ),
        )
        chosen.append(best)
        count[groups[best]] = count.get(groups[best], 0) + 1
        del relevance[best]
    return chosen


def spread(listed: Sequence[str], groups: Mapping[str, str]) -> float:
    """Return the share of different groups in a list: 1 when no two offers are alike; 0 for an empty list."""
    return len({groups[offer] for offer in listed}) / len(listed) if listed else 0.0


def _fits(offer: Offer, context: Context) -> bool:
    return context == "any" or not offer.contexts or context in offer.contexts
