"""The bootstrap of link ids by private set intersection: five files between two real homes."""

from __future__ import annotations

import csv
import json
import sqlite3
import sys
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from convoy_demo.party_data import party_id
from convoy_node.alignment.bootstrap import LEAKAGE, BootstrapRefused
from convoy_node.cli import app

UID = "urn:convoy:contract:risk"
OEM, INSURER = party_id("oem"), party_id("insurer-a")


def say(*arguments: object) -> Any:
    """Run a command of the node with --json; a refusal comes out as its exception."""
    result = CliRunner().invoke(app, [*map(str, arguments), "--json"])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return json.loads(result.stdout)


class Legacy:
    """Two holders whose consents were given before link ids were issued; both know the same number plates."""

    def __init__(self, federation: Any, folder: Path) -> None:
        self.folder, self.home = folder, {"oem": federation.home("oem"), "insurer-a": federation.home("insurer-a")}
        self.plates: dict[str, dict[str, str]] = {"oem": {}, "insurer-a": {}}
        for short, peer in (("oem", INSURER), ("insurer-a", OEM)):
            with closing(sqlite3.connect(self.home[short] / "register.db")) as db, db:
                rows = db.execute(
                    "SELECT local_id, hex(link_id) FROM consent WHERE contract = ? AND counterpart = ?", (UID, peer)
                ).fetchall()
                self.plates[short] = {person: f"A{link[:6]} {link[6:16].lower()}" for person, link in rows[:240]}
                db.execute("UPDATE consent SET link_id = NULL, counterpart = '' WHERE contract = ?", (UID,))
                others = db.execute(
                    "SELECT local_id FROM consent WHERE contract = ? AND counterpart = '' LIMIT 2000", (UID,)
                ).fetchall()
            strangers = [person for (person,) in others if person not in self.plates[short]][:35]
            self.plates[short] |= {person: f"X-{short}-{person}" for person in strangers}
            with (folder / f"{short}.csv").open("w", newline="") as file:
                csv.writer(file, lineterminator="\n").writerows(
                    [("person_id", "identifier"), *self.plates[short].items()]
                )

    @property
    def common(self) -> dict[str, str]:
        """The insurer's person for each person of the OEM."""
        there = {plate: person for person, plate in self.plates["insurer-a"].items()}
        return {person: there[plate] for person, plate in self.plates["oem"].items() if plate in there}

    def links(self, short: str) -> dict[str, tuple[str, str]]:
        """Return link id and counterpart by own id."""
        with closing(sqlite3.connect(self.home[short] / "register.db")) as db:
            rows = db.execute(
                "SELECT local_id, hex(link_id), counterpart FROM consent WHERE contract = ? AND link_id NOT NULL",
                (UID,),
            ).fetchall()
        return {person: (link, counterpart) for person, link, counterpart in rows}

    def step(self, short: str, step: str, *given: object, out: str = "") -> Any:
        """Take a step by its command."""
        with_ids = () if step == "answer" else ("--ids", self.folder / f"{short}.csv")
        more = ("--out", self.folder / out) if out else ()
        return say("psi", step, *given, "--contract", "risk", *with_ids, *more, "--home", self.home[short])

    def all_but_last(self) -> None:
        """Go as far as the file of link ids."""
        self.step("oem", "offer", INSURER, out="offer.psi")
        self.step("insurer-a", "ask", self.folder / "offer.psi", out="ask.psi")
        self.step("oem", "answer", self.folder / "ask.psi", out="answer.psi")
        self.step("insurer-a", "match", self.folder / "answer.psi", out="links.psi")


@pytest.fixture
def legacy(federation, tmp_path: Path) -> Legacy:
    """Two holders of before."""
    return Legacy(federation, tmp_path)


def test_both_holders_give_the_same_link_id_to_each_common_person_and_to_nobody_else(legacy: Legacy) -> None:
    """And every command says what it discloses; the files hold no identifier."""
    assert len(legacy.common) > 50
    legacy.all_but_last()
    done = legacy.step("oem", "accept", legacy.folder / "links.psi")
    assert done["leakage"] == list(LEAKAGE)
    assert done["listed"] % 50 == 0
    assert done["linked"] == len(legacy.common)
    oem, insurer = legacy.links("oem"), legacy.links("insurer-a")
    assert set(oem) == set(legacy.common)
    assert {person: oem[person][0] for person in oem} == {
        person: insurer[there][0] for person, there in legacy.common.items()
    }
    assert {counterpart for _, counterpart in oem.values()} == {INSURER}
    assert {counterpart for _, counterpart in insurer.values()} == {OEM}
    carried = b"".join((legacy.folder / f"{name}.psi").read_bytes() for name in ("offer", "ask", "answer", "links"))
    for plates in legacy.plates.values():
        assert not [p for p in plates.values() if p.replace(" ", "").upper().encode() in carried]
    for home in legacy.home.values():
        assert list((home / "psi").iterdir()) == []
    shown = say("consent", "show", next(iter(oem)), "--contract", "risk", "--home", legacy.home["oem"])
    assert shown["state"] == "given"
    assert len(shown["records"]) == 1  # nothing of what the person said has changed


def test_an_offer_is_answered_once_and_files_serve_only_their_step_and_party(legacy: Legacy) -> None:
    """So that nobody probes list after list, and a file that was changed or is another's opens nothing."""
    folder = legacy.folder
    legacy.step("oem", "offer", INSURER, out="offer.psi")
    with pytest.raises(BootstrapRefused, match="not the offer"):
        legacy.step("oem", "ask", folder / "offer.psi", out="x.psi")
    legacy.step("insurer-a", "ask", folder / "offer.psi", out="ask.psi")
    with pytest.raises(BootstrapRefused, match="not the ask"):
        legacy.step("oem", "answer", folder / "offer.psi", out="x.psi")
    raw = (folder / "ask.psi").read_bytes()
    (folder / "bad.psi").write_bytes(raw[:-1] + bytes([raw[-1] ^ 1]))
    with pytest.raises(BootstrapRefused, match="changed"):
        legacy.step("oem", "answer", folder / "bad.psi", out="x.psi")
    (folder / "bad.psi").write_bytes(raw.replace(b'"session": "', b'"session": "0', 1))
    with pytest.raises(BootstrapRefused):
        legacy.step("oem", "answer", folder / "bad.psi", out="x.psi")
    legacy.step("oem", "answer", folder / "ask.psi", out="answer.psi")
    with pytest.raises(BootstrapRefused, match="answered before"):
        legacy.step("oem", "answer", folder / "ask.psi", out="x.psi")
    with pytest.raises(BootstrapRefused, match="cannot be read"):
        legacy.step("oem", "answer", folder / "nothing.psi", out="x.psi")
    legacy.step("insurer-a", "match", folder / "answer.psi", out="links.psi")
    with pytest.raises(BootstrapRefused, match="knows nothing of this session"):
        legacy.step("insurer-a", "match", folder / "answer.psi", out="x.psi")


def test_who_withdrew_or_never_consented_is_in_no_list(legacy: Legacy, federation) -> None:
    """Whatever the file of identifiers says."""
    person = next(iter(legacy.common))
    say("consent", "withdraw", person, "--contract", "risk", "--home", legacy.home["oem"])
    federation.clock.pass_by(seconds=5)
    with (legacy.folder / "oem.csv").open("a") as file:
        file.write("nobody-known,AABBCC\n")
    legacy.all_but_last()
    legacy.step("oem", "accept", legacy.folder / "links.psi")
    assert person not in legacy.links("oem")
    assert len(legacy.links("oem")) == len(legacy.common) - 1


def test_faults_of_the_file_and_a_missing_extra_are_told_with_the_fix(
    legacy: Legacy, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message without the library names the command that installs it."""
    path = legacy.folder / "oem.csv"
    text = path.read_text()
    first, second, *_ = legacy.plates["oem"].items()
    path.write_text(text.replace(second[1], first[1]))
    with pytest.raises(BootstrapRefused, match="several persons"):
        legacy.step("oem", "offer", INSURER, out="offer.psi")
    path.write_text("person,plate\n1,2\n")
    with pytest.raises(BootstrapRefused, match="person_id and identifier"):
        legacy.step("oem", "offer", INSURER, out="offer.psi")
    path.write_text("person_id,identifier\nnobody,A1\n")
    with pytest.raises(BootstrapRefused, match="nobody consents"):
        legacy.step("oem", "offer", INSURER, out="offer.psi")
    path.write_text(text)
    with pytest.raises(BootstrapRefused, match="no mask key"):
        legacy.step("oem", "offer", "did:web:stranger.example", out="offer.psi")
    monkeypatch.setitem(sys.modules, "private_set_intersection.python", None)
    with pytest.raises(BootstrapRefused) as refused:
        legacy.step("oem", "offer", INSURER, out="offer.psi")
    assert refused.value.code == "PSI_MISSING"
    assert "pip install 'convoy-node[psi]'" in refused.value.fix


def test_the_help_states_what_is_disclosed() -> None:
    """Before anybody begins."""
    told = CliRunner().invoke(app, ["psi", "--help"]).stdout
    assert "BOTH holders" in " ".join(told.split())
