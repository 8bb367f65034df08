"""A list of offers for one person, made at home from a release: charging sites, service packages, bundles.

History (charging operator) or driving profile (carmaker) are read from the node's own rows and go nowhere. A person who opted out of
personal offers gets the general list; the choice is kept in ``offers.json`` of the node's folder, is asked before anything is read
about the person, and costs nothing in privacy either way: all of this is post-processing of a released model.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import numpy.typing as npt

from convoy_contracts.specification import RecommendSpecification, TowersSpecification
from convoy_models.bundle import Bundle
from convoy_models.recommend.items import history_rows, profile_rows
from convoy_models.recommend.model import RecommendModel
from convoy_models.recommend.rerank import Context, Listed, Offer, Wish, recommend
from convoy_models.recommend.towers import TowersModel
from convoy_node import dataset
from convoy_node.errors import NodeError
from convoy_node.settings import Settings

FILE = "offers.json"
KINDS: Mapping[str, Literal["site", "service", "bundle"]] = {"site": "site", "package": "service", "bundle": "bundle"}
"""Kind of an offer by the beginning of its id, where no catalogue says more."""
CONTEXTS: tuple[Context, ...] = ("any", "commute", "family", "business")


@dataclass(frozen=True, slots=True)
class Asked:
    """Who asks for what: ``context`` of this moment, ``length`` of the list, ``variety`` in [0, 1]."""

    person: str
    context: Context = "any"
    length: int = 10
    variety: float = 0.3


def list_for(bundle: Bundle, home: Path, catalogue: Sequence[Offer] | None, asked: Asked) -> tuple[Listed, ...]:
    """Return the offers for one person.

    Args:
        bundle: a verified release of ``recommend-items/1`` or ``recommend-towers/1``.
        home: the node's folder.
        catalogue: what the offers are, in any order; None takes kinds from the ids.
        asked: who asks for what.

    Raises:
        NodeError: another kind of model, an unknown person, or a catalogue of other offers.
        ModelsError: numbers that make no list.
    """
    model = _model(bundle)
    spec = model.specification
    offers = {offer.id: offer for offer in catalogue or [offer_of(item) for item in spec.items]}
    if set(offers) != set(spec.items):
        odd = sorted(set(offers) ^ set(spec.items))
        raise NodeError(
            f"the catalogue is not the release's: {', '.join(odd[:5])}.", code="OFFERS_UNKNOWN",
            fix="List every item of the signed specification, and nothing else.",
        )  # fmt: skip
    popularity = np.asarray(model.popularity, dtype=np.float64)
    is_personal = asked.person not in opted_out(home)
    scores, used = popularity, frozenset[str]()
    if is_personal:
        scores, used = _scores(model, home, asked.person)
    return recommend(
        [offers[item] for item in spec.items],
        scores,
        popularity,
        Wish(is_personal, asked.context),
        length=asked.length,
        variety=asked.variety,
        used=used,
    )


def offer_of(item: str) -> Offer:
    """Return what the id of an item says about it; every offer is its own group."""
    return Offer(item, KINDS.get(item.partition("-")[0], "service"), item)


def read_catalogue(path: Path) -> list[Offer]:
    """Read a catalogue: JSON list of {id, kind, group, contexts}.

    Raises:
        NodeError: every fault at once.
    """
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise NodeError(
            f"{path.name} is no JSON.",
            code="FILE_UNREADABLE",
            fix="Name a list of {id, kind, group, contexts}.",
            fix_zh="请指定由 {id, kind, group, contexts} 组成的列表。",
        ) from error
    faults, offers = [], []
    for place, row in enumerate(rows if isinstance(rows, list) else [None]):
        kind, contexts = (row.get("kind"), row.get("contexts", [])) if isinstance(row, dict) else (None, [])
        if not isinstance(row, dict) or not isinstance(row.get("id"), str) or kind not in KINDS.values():
            faults.append(f"row {place}: id and kind (site, service, bundle) are due")
        elif not isinstance(contexts, list) or not set(contexts) <= set(CONTEXTS):
            faults.append(f"row {place}: contexts are of {', '.join(CONTEXTS)}")
        else:
            known = cast("Literal['site', 'service', 'bundle']", kind)
            offers.append(Offer(row["id"], known, str(row.get("group", row["id"])), frozenset(contexts)))
    if len({offer.id for offer in offers}) != len(offers):
        faults.append("an id stands twice")
    if faults:
        raise NodeError("; ".join(faults[:10]) + ".", code="OFFERS_UNKNOWN", fix="Correct the catalogue.")
    return offers


def opted_out(home: Path) -> frozenset[str]:
    """Return the persons who want general offers only."""
    path = home / FILE
    if not path.exists():
        return frozenset()
    try:
        return frozenset(map(str, json.loads(path.read_text(encoding="utf-8"))["optedOut"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise NodeError(
            f"{FILE} cannot be read.", code="FILE_UNREADABLE",
            fix="Restore it from a backup; nobody gets personal offers before.", fix_zh="请从备份恢复；此前不向任何人提供个性化推荐。",
        ) from error  # fmt: skip


def set_opt_out(home: Path, person: str, *, is_out: bool) -> None:
    """Keep a person's choice, on disk before this returns."""
    persons = set(opted_out(home))
    (persons.add if is_out else persons.discard)(person)
    path, hidden = home / FILE, home / f".{FILE}.part"
    with hidden.open("w", encoding="utf-8") as file:
        json.dump({"optedOut": sorted(persons)}, file, ensure_ascii=False)
        file.flush()
        os.fsync(file.fileno())
    hidden.chmod(0o600)
    hidden.replace(path)


def _model(bundle: Bundle) -> RecommendModel | TowersModel:
    kind, text = bundle.specification.get("kind"), json.dumps(bundle.specification)
    if kind == "recommend-items/1":
        return RecommendModel.from_arrays(RecommendSpecification.model_validate_json(text), bundle.arrays)
    if kind == "recommend-towers/1":
        return TowersModel.from_arrays(TowersSpecification.model_validate_json(text), bundle.arrays)
    raise NodeError(
        "this release recommends nothing.",
        code="RELEASE_OF_ANOTHER_KIND",
        fix="Name a release of recommend-items/1 or recommend-towers/1.",
    )


def _scores(
    model: RecommendModel | TowersModel, home: Path, person: str
) -> tuple[npt.NDArray[np.float64], frozenset[str]]:
    settings, spec = Settings.load(home), model.specification
    if isinstance(model, TowersModel) and settings.role != "charging":
        raise NodeError(
            f"this release reads the histories of a charging operator; this node's role is {settings.role!r}.",
            code="RELEASE_OF_ANOTHER_KIND",
            fix="Name a release of recommend-items/1, which also reads a driving profile.",
        )
    if settings.data is None:
        raise NodeError(
            "node.toml names no data.",
            code="DATA_MISSING",
            fix="Name the file in node.toml.",
            fix_zh="请在 node.toml 中指定该文件。",
        )
    wanted = dataset.expected_columns(spec, settings.role)
    table = dataset.PersonTable.load(
        settings.data.open(settings.party),
        wanted,
        settings.party,
        person_column=settings.person_column,
        persons={person},
    )
    if not len(table):
        raise NodeError(
            "no row of that person.",
            code="PERSON_UNKNOWN",
            fix="Use the id of the person column; opted out is not needed.",
            fix_zh="请使用人员列中的编号；已退出者无须处理。",
        )
    columns: Mapping[str, Any] = table.columns([person])
    if isinstance(model, TowersModel):
        made = model.scores_of(columns, columns[dataset.HISTORY])
    elif settings.role == "charging":
        made = model.warm(history_rows(model.specification, columns[dataset.HISTORY]))
    else:
        made = model.cold(profile_rows(model.specification, columns))
    return made[0], frozenset(map(str, columns[dataset.HISTORY][0])) if settings.role == "charging" else frozenset()
