"""The commands of ``convoy-audit`` over every kind of storage: pack, zip, tiles, SQLite file, PostgreSQL dump."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from convoy_audit import events, zk
from convoy_audit.archive import write_pack
from convoy_audit.canonical import b64u
from convoy_audit.cli import main
from convoy_audit.rehearsal import RUN, Member, Rehearsal

OEM = "did:web:oem.example"
Make = Callable[[Rehearsal, Path], Path]


def pack(told: Rehearsal, folder: Path) -> Path:
    return write_pack(folder / "pack", told.parts())


def zipped(told: Rehearsal, folder: Path) -> Path:
    return write_pack(folder / "pack.zip", told.parts())


def tiles(told: Rehearsal, folder: Path) -> Path:
    for name, content in told.log.static(told.cosigned()).items():
        (folder / "tiles" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "tiles" / name).write_bytes(content)
    return folder / "tiles"


def database(told: Rehearsal, folder: Path) -> Path:
    """The coordinator's tables, as SQLite keeps them."""
    path = folder / "log.sqlite3"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE log_entry (idx INTEGER PRIMARY KEY, leaf BLOB, body BLOB)")
        connection.execute("CREATE TABLE log_frontier (size INTEGER PRIMARY KEY, frontier BLOB)")
        connection.execute("CREATE TABLE log_checkpoint (size INTEGER PRIMARY KEY, root BLOB, note TEXT)")
        rows = [(i, told.log.tree.leaf(i), raw) for i, raw in enumerate(told.log.entries)]
        connection.executemany("INSERT INTO log_entry VALUES (?, ?, ?)", rows)
        size = told.log.tree.size
        connection.execute("INSERT INTO log_frontier VALUES (?, ?)", (size, b"".join(told.log.tree.frontier())))
        connection.execute(
            "INSERT INTO log_checkpoint VALUES (?, ?, ?)", (size, told.log.tree.root(), told.cosigned().decode())
        )
    connection.close()
    return path


def dump(told: Rehearsal, folder: Path) -> Path:
    """The same tables, as ``pg_dump --format=plain`` writes them (rows in any order)."""
    size, note = told.log.tree.size, told.cosigned().decode().replace("\\", "\\\\").replace("\n", "\\n")
    rows = [f"{i}\t\\\\x{told.log.tree.leaf(i).hex()}\t\\\\x{raw.hex()}" for i, raw in enumerate(told.log.entries)]
    text = "\n".join(
        [
            "--\n-- PostgreSQL database dump\n--\n\nSET client_encoding = 'UTF8';\n",
            "COPY public.other (a, b) FROM stdin;\n1\tx\n\\.\n",
            "COPY public.log_checkpoint (size, root, note) FROM stdin;",
            f"{size}\t\\\\x{told.log.tree.root().hex()}\t{note}\n\\.\n",
            "COPY public.log_entry (idx, leaf, body) FROM stdin;",
            *reversed(rows),
            "\\.\n",
            "COPY public.log_frontier (size, frontier) FROM stdin;",
            f"{size}\t\\\\x{b''.join(told.log.tree.frontier()).hex()}\n\\.\n",
        ]
    )
    path = folder / "log.sql"
    path.write_text(text + "\n", encoding="utf-8")
    return path


STORED = [pack, zipped, tiles, database, dump]


@pytest.mark.parametrize("make", STORED)
def test_a_log_is_derived_again_from_wherever_it_lies(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Same size, root and answers; signatures are verified with a policy."""
    told = Rehearsal()
    path = str(make(told, tmp_path))
    (tmp_path / "policy").write_bytes(told.policy.text)
    assert main(["fsck", path, "--policy", str(tmp_path / "policy"), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["entries"], found["root"]) == (len(told.log.entries), told.log.tree.root().hex())
    assert found["signaturesVerified"] >= 10
    assert main(["show", path, "10"]) == 0
    assert "Run authorised" in capsys.readouterr().out
    assert main(["query", path, "--reason", "BUDGET_EXHAUSTED", "--json"]) == 0
    (entry,) = json.loads(capsys.readouterr().out)["entries"]
    assert (entry["party"], entry["event"]["run"]) == (OEM, "run-2")


@pytest.mark.parametrize("make", [pack, tiles, database, dump])
def test_a_changed_log_answers_nothing(make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A query over a log that does not verify prints its faults and exits 1."""
    told = Rehearsal()
    told.log.entries[10] = told.log.entries[10].replace(b'"round":1', b'"round":2')
    if make is pack:  # cannot be made of such entries
        path = make(Rehearsal(), tmp_path)
        bundle = next((path / "tile" / "entries").rglob("*.p/*"))
        bundle.write_bytes(bundle.read_bytes().replace(b'"round":1', b'"round":2'))
    else:
        path = make(told, tmp_path)
    for command in (["query", str(path)], ["report", "use", str(path)], ["sample", str(path)], ["fsck", str(path)]):
        assert main(command) == 1, command
    assert "not those that were signed" in capsys.readouterr().err


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text.replace("\\.\n", ""),
        lambda text: text.replace("(idx, leaf, body)", "(idx, leaf, text)"),
        lambda text: text.replace("log_entry", "log_entries"),
        lambda text: text.replace("\\\\x", "\\\\y"),
        lambda text: text.replace("\t", " "),
    ],
)
def test_a_dump_that_is_none_is_refused(spoil: Callable[[str], str], tmp_path: Path) -> None:
    """Cut off, other columns, no entries, other spelling: exit 2 and a sentence."""
    path = dump(Rehearsal(), tmp_path)
    path.write_text(spoil(path.read_text()))
    assert main(["fsck", str(path)]) == 2


def test_use_is_reported_by_contract_and_quarter_in_both_languages(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One row a party; the limit is said."""
    path = str(pack(Rehearsal(), tmp_path))
    assert main(["report", "use", path, "--quarter", "2026-Q4", "--contract", "contract-1"]) == 0
    out = capsys.readouterr().out
    assert out.count("contract-1") == 4
    assert "asset-1 2.900" in out
    assert main(["report", "use", path, "--lang", "zh"]) == 0
    assert "季度" in capsys.readouterr().out
    assert main(["report", "use", path, "--quarter", "2025-Q1", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == []


def test_a_sample_prints_its_seed_and_repeats(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A fresh seed each time, unless one is given."""
    path = str(pack(Rehearsal(), tmp_path))
    assert main(["sample", path, "-n", "5", "--json"]) == 0
    first = json.loads(capsys.readouterr().out)
    assert len(first["entries"]) == 5
    assert main(["sample", path, "-n", "5", "--seed", first["seed"], "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == first
    assert main(["sample", path, "-n", "500"]) == 0
    assert "seed" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("condition", "count"),
    [(["--party", OEM], 7), (["--run", RUN, "--kind", "node:run:"], 4), (["--model", RUN], 2), (["--since", "2027-01-01"], 0),
     (["--until", "2026-11-25"], 21), (["--contract", "contract-1", "--since", "2026-11-24T03:00:13+00:00"], 9)],
)  # fmt: skip
def test_conditions_are_joined(
    condition: list[str], count: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each narrows the answer."""
    assert main(["query", str(pack(Rehearsal(), tmp_path)), *condition, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["entries"]) == count


def test_wrong_arguments_and_files_are_exit_2_with_a_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was checked, so nothing is claimed."""
    (tmp_path / "junk").write_bytes(b"junk")
    for arguments in (
        ["verify", "nowhere"],
        ["fsck", str(tmp_path / "junk")],
        ["query", str(tmp_path)],
        ["zk", "verify", str(tmp_path / "junk")],
    ):
        assert main(arguments) == 2
        assert "convoy-audit: " in capsys.readouterr().err
    for arguments in (["query", "x", "--since", "yesterday"], ["zk", "prove", "x"], ["nothing"], []):
        with pytest.raises(SystemExit) as raised:
            main(arguments)
        assert raised.value.code == 2


# Zero knowledge -----------------------------------------------------------------------------------


def committed(told: Rehearsal, member: Member, spends: dict[int, zk.Opening], points: dict[int, bytes]) -> None:
    for number in spends:
        told.state(
            member,
            events.QuantityCommitted(
                at=told.tick(), party=member.party, run=RUN, contract=told.contract_digest, round=number, quantity="spend",
                commitment=points[number],
            ),
        )  # fmt: skip


def test_a_hidden_spend_is_proven_and_found_in_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Commitments as signed statements, a proof beside them; the label is on every output."""
    told = Rehearsal()
    made = {number: zk.commit(value) for number, value in ((1, 400_000), (2, 0), (3, 1_600_000))}
    committed(told, told.members[1], {n: o for n, (_, o) in made.items()}, {n: p for n, (p, _) in made.items()})
    rows = [{"round": n, "value": o.value, "blinding": b64u(o.blinding)} for n, (_, o) in made.items()]
    openings, proof, bundle = tmp_path / "openings.json", tmp_path / "proof.json", str(pack(told, tmp_path))
    openings.write_text(json.dumps(rows))
    party = told.members[1].party
    claim = ["--contract", told.contract_digest, "--run", RUN, "--party", party, "--out", str(proof)]
    flags = ["--experimental", "--kind", "spend-at-most"]
    assert main(["zk", "prove", str(openings), *flags, "--bound", "1999999", *claim]) == 2
    assert main(["zk", "prove", str(openings), *flags, "--bound", "2000000", *claim]) == 0
    assert main(["zk", "verify", str(proof), "--pack", bundle]) == 0
    out = capsys.readouterr().out
    assert "HOLDS" in out
    assert "stand in the log" in out
    assert "not that the party counted honestly" in out
    assert "400000" not in proof.read_text()
    proof.write_text(proof.read_text().replace('"bound":2000000', '"bound":1999999'))
    assert main(["zk", "verify", str(proof), "--json"]) == 1
    assert json.loads(capsys.readouterr().out)["holds"] is False
    fresh = zk.prove(zk.Claim("spend-at-most", 5, told.contract_digest, RUN, party, (1,)), [zk.commit(1)[1]])
    proof.write_bytes(fresh.to_bytes())
    assert main(["zk", "verify", str(proof)]) == 0
    assert main(["zk", "verify", str(proof), "--pack", bundle]) == 1
