"""One folder of files per party, each with that party's columns and consents only.

No file names another party's ids: a party knows its own customers by its own ids, in its own row
order. The same driver is linked between two parties only by the random ``link_id`` that both were
handed with the driver's consent, one per contract and pair.

``<party>/data.parquet``: insurers ``person_id``, policy columns, ``claim_count``,
``exposure_years``; OEM ``person_id``, driving columns; charging operator ``person_id``, ``items``
(list of item ids). ``<party>/consents.parquet``: see ``CONSENT_SCHEMA``; one row per person and
contract.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from convoy_demo.population import (
    INSURER_COLUMNS,
    INSURERS,
    ITEMS,
    OEM_COLUMNS,
    Histories,
    Ints,
    Population,
)

OEM = "oem"
CHARGING = "charging"
CONSENT_SCHEMA = pa.schema(
    [
        ("local_id", pa.string()),  # the party's own id of the person
        ("contract", pa.string()),  # 'risk' or 'recommendation'
        ("link_id", pa.binary(16)),  # null: no counterpart, the person is in the solo cohort
        ("counterpart", pa.string()),  # party id that was handed the same link_id
        ("given", pa.string()),  # RFC 3339
        ("until", pa.string()),  # RFC 3339 or null
        ("withdrawn", pa.string()),  # null here
        ("notice", pa.string()),
        ("purpose", pa.string()),
        ("recipients", pa.list_(pa.string())),
        ("separate", pa.bool_()),
        ("age", pa.int32()),
        ("guardian", pa.bool_()),
    ]
)
"""Members of a consent record (contract-cases/FORMAT.md §2) with the ids that stay at the node."""


@dataclass(frozen=True, slots=True)
class ConsentTerms:
    """What the driver was told and agreed to, for one contract."""

    notice: str
    purpose: str
    recipients: tuple[str, ...]
    given: str
    until: str | None = None
    separate: bool = True


@dataclass(frozen=True, slots=True)
class PartyFiles:
    """What one party was handed."""

    data: Path
    consents: Path


def party_id(short: str) -> str:
    """Return the party id of a short name."""
    return f"did:web:{short}.example"


def write_party_data(
    folder: Path,
    population: Population,
    histories: Histories,
    *,
    risk: ConsentTerms,
    recommendation: ConsentTerms,
    seed: int,
) -> dict[str, PartyFiles]:
    """Write every party's files below ``folder/<short name>`` and return them by short name.

    Args:
        folder: created where absent; files are overwritten.
        population: drivers.
        histories: of the same population.
        risk: consent terms of the risk contract (insurers, OEM).
        recommendation: consent terms of the recommendation contract (OEM, charging operator).
        seed: of local ids, row orders and link ids.
    """
    rng = np.random.default_rng([seed, 7003])
    ids = _local_ids(rng, population)
    age = population.columns["driver_age"].astype(np.int32)
    link = {name: rng.integers(0, 256, (population.size, 16), dtype=np.uint8) for name in ("risk", "recommendation")}
    files: dict[str, PartyFiles] = {}
    for number, short in enumerate(INSURERS):
        rows = rng.permutation(np.flatnonzero(population.insurer == number))
        columns = {name: population.columns[name][rows] for name in INSURER_COLUMNS}
        columns["claim_count"] = population.claims[rows]
        columns["exposure_years"] = population.exposure_years[rows]
        joint = population.has_oem[rows]
        consents = _consents(
            ids["insurer"][rows], "risk", risk, age[rows], link["risk"][rows], joint,
            np.full(rows.size, party_id(OEM)),
        )  # fmt: skip
        files[short] = _write(folder / short, ids["insurer"][rows], columns, consents)

    rows = rng.permutation(np.flatnonzero(population.owns_brand))
    insurers = np.array([party_id(short) for short in INSURERS])[population.insurer]
    for_risk, for_offers = rows[population.has_oem[rows]], rows[population.has_charging[rows]]
    consents = pa.concat_tables(
        [
            _consents(
                ids["oem"][for_risk], "risk", risk, age[for_risk], link["risk"][for_risk],
                np.ones(for_risk.size, dtype=np.bool_), insurers[for_risk],
            ),
            _consents(
                ids["oem"][for_offers], "recommendation", recommendation, age[for_offers],
                link["recommendation"][for_offers], np.ones(for_offers.size, dtype=np.bool_),
                np.full(for_offers.size, party_id(CHARGING)),
            ),
        ]
    )  # fmt: skip
    columns = {name: population.columns[name][rows] for name in OEM_COLUMNS}
    files[OEM] = _write(folder / OEM, ids["oem"][rows], columns, consents)

    users = rng.permutation(histories.drivers.size)
    drivers = histories.drivers[users]
    agreed = drivers[population.has_charging[drivers]]
    consents = _consents(
        ids["charging"][agreed], "recommendation", recommendation, age[agreed],
        link["recommendation"][agreed], np.ones(agreed.size, dtype=np.bool_),
        np.full(agreed.size, party_id(OEM)),
    )  # fmt: skip
    items = _item_lists(histories, users)
    files[CHARGING] = _write(folder / CHARGING, ids["charging"][drivers], {"items": items}, consents)
    return files


def _local_ids(rng: np.random.Generator, population: Population) -> dict[str, npt.NDArray[np.str_]]:
    """Return every driver's id at each kind of party; the numbers of two parties have nothing in
    common."""
    out = {}
    for kind, letter in (("insurer", "P"), ("oem", "V"), ("charging", "M")):
        numbers: Ints = rng.permutation(population.size)
        out[kind] = np.char.add(letter, np.char.zfill(numbers.astype(np.str_), 8))
    return out


def _item_lists(histories: Histories, users: Ints) -> pa.Array:
    used = histories.used[users]
    columns = np.nonzero(used)[1]
    offsets = np.concatenate([[0], np.cumsum(used.sum(axis=1))]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.array(ITEMS)[columns]))


def _consents(
    local_ids: npt.NDArray[np.str_],
    contract: str,
    terms: ConsentTerms,
    age: npt.NDArray[np.int32],
    link: npt.NDArray[np.uint8],
    linked: npt.NDArray[np.bool_],
    counterpart: npt.NDArray[np.str_],
) -> pa.Table:
    size = local_ids.size
    hidden = ~linked
    ids = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(16), size, [None, pa.py_buffer(np.ascontiguousarray(link).tobytes())]
    )
    links = pa.array(
        [None if lost else value for value, lost in zip(ids.to_pylist(), hidden, strict=True)],
        pa.binary(16),
    )
    return pa.table(
        {
            "local_id": pa.array(local_ids),
            "contract": pa.repeat(contract, size),
            "link_id": links,
            "counterpart": pa.array(counterpart, mask=hidden),
            "given": pa.repeat(terms.given, size),
            "until": pa.repeat(pa.scalar(terms.until, pa.string()), size),
            "withdrawn": pa.nulls(size, pa.string()),
            "notice": pa.repeat(terms.notice, size),
            "purpose": pa.repeat(terms.purpose, size),
            "recipients": pa.repeat(pa.scalar(list(terms.recipients), pa.list_(pa.string())), size),
            "separate": pa.repeat(terms.separate, size),
            "age": pa.array(age),
            "guardian": pa.repeat(False, size),
        },
        schema=CONSENT_SCHEMA,
    )


def _write(
    folder: Path,
    local_ids: npt.NDArray[np.str_],
    columns: Mapping[str, object],
    consents: pa.Table,
) -> PartyFiles:
    folder.mkdir(parents=True, exist_ok=True)
    files = PartyFiles(folder / "data.parquet", folder / "consents.parquet")
    arrays = {"person_id": pa.array(local_ids)}
    arrays |= {name: values if isinstance(values, pa.Array) else pa.array(values) for name, values in columns.items()}
    pq.write_table(pa.table(arrays), files.data, compression="zstd")
    pq.write_table(consents, files.consents, compression="zstd")
    return files
