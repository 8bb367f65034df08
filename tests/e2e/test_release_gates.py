"""From a fitted model to its use, through the real apps: evaluated, refused when useless, vetoed; read, compared, listed."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner

from convoy_contracts.specification import Evaluation
from convoy_coordinator.keys import read_keys
from convoy_demo import agreements
from convoy_demo.places import INSURER_SHORTS
from convoy_demo.scenario import Scenario
from convoy_demo.specifications import recommend_specification, risk_specification
from convoy_models.holdout import held_out
from convoy_models.noise import NoiseSource
from convoy_models.testing import NoNoise, SeededNoise
from convoy_node.cli import app
from convoy_node.ledger_view import LedgerView

TERMS = Evaluation(holdoutMilli=250, shareMilli=200, confidenceMilli=500, audit="garage")
RISK = risk_specification().model_copy(update={"cohortFloor": 1_000, "evaluation": TERMS})
JUDGED = Scenario(
    drivers=24_000,
    seed=5,
    risk=RISK,
    offers=recommend_specification().model_copy(update={"cohortFloor": 100}),
    min_subjects=50,
    cap_micro=12_000_000,
    year_cap_micro=12_000_000,
)
Found = Callable[[Path, Scenario], contextlib.AbstractContextManager[Any]]


@pytest.fixture(scope="module")
def judged(tmp_path_factory: pytest.TempPathFactory, found_small: Found) -> Iterator[Any]:
    """A federation whose contract holds a quarter of the joint cohort out."""
    with found_small(tmp_path_factory.mktemp("judged"), JUDGED) as federation:
        yield federation


def values_of(federation: Any, short: str) -> dict[str, Any]:
    """Return what an insurer's own command says about its last candidate."""
    done = CliRunner().invoke(app, ["value", "--home", str(federation.places.node(short)), "--json"])
    assert done.exit_code == 0, done.output
    return dict(json.loads(done.output)[-1])


def test_a_model_that_passes_is_released_with_its_evaluation(judged: Any) -> None:
    """Card, HTTP and each insurer's own statement; the evaluation is inside the run's epsilon."""
    with judged.embedded(lambda _: NoNoise()) as runtime:
        run = judged.train(runtime)
    assert run["state"] == "finished", (run["party"], run["reasons"], run["cause"], run["fix"])
    release = judged.api.get(f"/v1/releases/{run['uid']}")
    found = release["summary"]["evaluation"]
    assert found["d2Joint"] > found["d2InsurersTogether"]
    assert found["joiningCarmaker"]["interval95"][0] < found["joiningCarmaker"]["gainNats"]
    assert len(found["bands"]) == 10
    assert {row["level"] for row in found["levels"]} == {"no", "yes"}
    assert found["moduleShares"].keys() == {"oem", "insurer"}
    assert "better" in found["againstAlone"].values()
    card = (judged.places.coordinator / "releases" / run["uid"] / "card.md").read_text()
    for line in (
        "deviance explained (D2), joint model", "who brought what", "observed / expected, garage yes",
        "membership inference: no alarm at / parties asked | 3 / 3",
    ):  # fmt: skip
        assert line in card
    key = read_keys(judged.places.coordinator / "keys").release_public.hex()
    folder = str(judged.places.coordinator / "releases" / run["uid"])
    home = str(judged.places.node("insurer-a"))
    shown = CliRunner().invoke(app, ["release", "diff", folder, folder, "--home", home, "--key", key])
    assert shown.exit_code == 0, shown.output
    assert "Nothing changed." in shown.output
    for short in INSURER_SHORTS:
        value = values_of(judged, short)
        assert value["run"] == run["uid"]
        assert "alone" in value["statement"]
        assert value["statement"] not in json.dumps(release)
        (attack,) = [row for row in value["membership"] if row["cohort"] == "joint"]
        assert attack["proven"] < attack["allowed"]
        assert value["said"]["attack"] == "passed"
        with LedgerView(judged.places.node(short) / "ledger.db") as ledger:
            assert 0 < ledger.spent_mu2(f"urn:convoy:asset:{short}:policy:1") <= 0.838**2 * 1.01


def test_the_value_is_forecast_before_signing(judged: Any, tmp_path: Path) -> None:
    """From the contract's text, the register's count and public priors; nothing is asked of anybody."""
    text = judged.api.get(f"/v1/contracts/{judged.contracts[agreements.RISK]}")["text"]
    (tmp_path / "contract.json").write_text(text, encoding="utf-8")
    asked = ["value", str(tmp_path / "contract.json"), "--cohort", "41000", "--json"]
    done = CliRunner().invoke(app, [*asked, "--home", str(judged.places.node("insurer-a"))])
    assert done.exit_code == 0, done.output
    found = json.loads(done.output)
    assert found["joint"]["low"] < found["joint"]["middle"] < found["joint"]["high"]
    assert 0 < found["alone"]["middle"] < found["joint"]["middle"]
    assert "costs epsilon 4.00" in found["statement"]


def test_a_useless_model_is_not_released_and_the_run_says_why(judged: Any) -> None:
    """The carmaker's noise drowns every joint sum: the utility gate stays shut, nodes settle, nothing is published."""

    def loud(party: str) -> NoiseSource:
        return SeededNoise(3, factor=60.0) if "oem" in party else NoNoise()

    with judged.embedded(loud) as runtime:
        run = judged.train(runtime)
    assert (run["state"], run["reason"]) == ("failed", "UTILITY_GATE"), (run["reason"], run["cause"])
    assert "Not better than" in run["cause"]
    assert run["progress"]["evaluation"]["joiningCarmaker"]
    assert run["fix"]
    assert run["uid"] not in {row["run"] for row in judged.api.get("/v1/releases")["releases"]}


def test_a_standing_veto_of_an_insurer_stops_a_release(judged: Any) -> None:
    """Set and cleared by the insurer's own command; the run names it."""
    home = str(judged.places.node("insurer-b"))
    contract = judged.contracts[agreements.RISK]
    done = CliRunner().invoke(app, ["veto", "set", contract, "--reason", "tariff review", "--home", home])
    assert done.exit_code == 0, done.output
    with judged.embedded(lambda _: NoNoise()) as runtime:
        run = judged.train(runtime)
    assert (run["state"], run["reason"]) == ("refused", "VETOED")
    assert run["party"].endswith("insurer-b.example")
    assert "tariff review" in run["cause"]
    assert run["uid"] not in {row["run"] for row in judged.api.get("/v1/releases")["releases"]}
    assert values_of(judged, "insurer-b")["said"]["veto"] is True
    cleared = CliRunner().invoke(app, ["veto", "clear", contract, "--home", home])
    assert cleared.exit_code == 0, cleared.output


def test_a_person_gets_offers_at_home_and_may_want_general_ones(judged: Any, tmp_path: Path) -> None:
    """Personal first; context and variety from a catalogue; after the opt-out the general list, without reading the person."""
    with judged.embedded() as runtime:
        run = judged.train(runtime, agreements.RECOMMENDATION)
    assert run["state"] == "finished", run
    home = judged.places.node("charging")
    card = (judged.places.coordinator / "releases" / run["uid"] / "card.md").read_text()
    assert "No membership attack was run before the release at did:web:charging.example" in card
    assert "nobody is held back for it" in card
    assert values_of(judged, "charging")["said"] == {"veto": False, "attack": "not run"}
    person = str(pq.read_table(next((home / "data").glob("*.parquet")))["person_id"][0])
    key = read_keys(judged.places.coordinator / "keys").release_public.hex()
    where = ["--home", str(home), "--key", key]
    folder = str(judged.places.coordinator / "releases" / run["uid"])

    def listed(*more: str) -> list[dict[str, Any]]:
        done = CliRunner().invoke(app, ["offers", "list", folder, *where, "--json", *more])
        assert done.exit_code == 0, done.output
        return list(json.loads(done.output))

    personal = listed("--person", person)
    assert [row["reason"] for row in personal] == ["personal"] * 10
    catalogue = [
        {
            "id": item,
            "kind": "site" if n % 2 else "bundle",
            "group": f"g{n % 4}",
            "contexts": ["family"] if n % 3 else [],
        }
        for n, item in enumerate(JUDGED.offers.items)
    ]
    (tmp_path / "catalogue.json").write_text(json.dumps(catalogue), encoding="utf-8")
    more = ("--catalogue", str(tmp_path / "catalogue.json"), "--context", "commute", "--length", "4", "--variety", "1")
    commute = listed("--person", person, *more)
    by = {row["id"]: row for row in catalogue}
    assert all(not by[row["id"]]["contexts"] for row in commute)
    assert len({by[row["id"]]["group"] for row in commute}) == 4
    out = CliRunner().invoke(app, ["offers", "opt-out", "--person", person, "--home", str(home)])
    assert out.exit_code == 0, out.output
    general = listed("--person", person)
    assert [row["reason"] for row in general] == ["popular"] * 10
    again = CliRunner().invoke(app, ["offers", "opt-in", "--person", person, "--home", str(home)])
    assert again.exit_code == 0, again.output
    assert listed("--person", person) == personal


def test_a_candidate_that_tells_members_from_others_is_not_released(judged: Any) -> None:
    """One insurer's attack with its own book finds them apart: the run names it, says why and what to do, nothing is published.

    Its held-out customers are made into others: the safest of all, each with a claim. What a leak would do, seen from home.
    """
    home = judged.places.node("insurer-a")
    (rows,) = (home / "data").glob("data*.parquet")
    (consents,) = (home / "data").glob("consents*.parquet")
    told = pq.read_table(consents).filter(pc.field("link_id").is_valid())
    out = held_out(told["link_id"].to_pylist(), TERMS.holdoutMilli)
    persons = {person for person, is_out in zip(told["local_id"].to_pylist(), out, strict=True) if is_out}
    table = pq.read_table(rows)
    columns = table.to_pandas()
    odd = columns["person_id"].isin(persons).to_numpy()
    columns.loc[odd, ["bonus_malus", "density_log", "claim_count"]] = [0.5, 0.0, 1]
    pq.write_table(pa.Table.from_pandas(columns, schema=table.schema, preserve_index=False), rows)
    with judged.embedded(lambda _: NoNoise()) as runtime:
        run = judged.train(runtime)
    assert (run["state"], run["reason"]) == ("refused", "MEMBERS_TOLD"), (run["reason"], run["cause"])
    assert run["party"].endswith("insurer-a.example")
    assert "epsilon and delta" in run["cause"]
    assert "run again only once the cause is found" in run["fix"]
    assert run["uid"] not in {row["run"] for row in judged.api.get("/v1/releases")["releases"]}
    value = values_of(judged, "insurer-a")
    assert value["said"]["attack"] == "alarm"
    assert any(row["proven"] > row["allowed"] for row in value["membership"])
    assert values_of(judged, "insurer-b")["said"]["attack"] == "passed"
