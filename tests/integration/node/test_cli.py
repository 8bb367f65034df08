"""The command line of a partner: every command does its work on a real folder and names the next one."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from typer.testing import CliRunner, Result

from convoy_node.cli import app
from convoy_node.errors import NodeError

COMMANDS = ("status", "ledger", "preview", "doctor")


def run(*arguments: object) -> Result:
    """Run a command in this process; a refusal comes out as its exception."""
    result = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if isinstance(result.exception, NodeError):
        raise result.exception
    return result


def data(*arguments: object) -> dict[str, object]:
    """Run a command with --json and return what it says."""
    return json.loads(run(*arguments, "--json").stdout)


def test_help_imports_nothing_heavy() -> None:
    """Neither torch, flwr, duckdb nor scipy is imported for it, so it answers at once."""
    text = "import sys, convoy_node.cli; print([m for m in ('torch', 'flwr', 'duckdb', 'scipy', 'numpy') if m in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_names_the_next_one(federation, command: str) -> None:
    """And with --json prints JSON only."""
    home = federation.home("insurer-c")
    assert "\nNext: convoy-node " in run(command, "--home", home).stdout
    assert data(command, "--home", home)


def test_status_and_ledger_say_what_a_run_cost(federation) -> None:
    """Beside the running node."""
    federation.complete()
    home = federation.home("insurer-c")
    status = data("status", "--home", home)
    assert status["log"] == {"origin": "log.example/convoy", "size": 1, "alarms": 0}
    (budget,) = status["budget"]  # type: ignore[misc]
    assert 3.9 < budget["epsilon"] <= 4.0
    ledger = data("ledger", "--events", "--home", home)
    assert len(ledger["events"]) == sum(  # type: ignore[arg-type]
        "did:web:insurer-c.example" in q.participants for q in federation.prepare().plan.queries
    )


def test_preview_lists_exactly_what_a_run_then_spends(federation) -> None:
    """Query by query, with the same clip and sigma."""
    home = federation.home("oem")
    (risk,) = [r for r in data("preview", "--home", home)["runs"] if r["algorithm"] == "risk-towers"]  # type: ignore[attr-defined]
    assert (risk["runs_left"], risk["epsilon"] <= 4.0, risk["persons"] > 1000) == (2, True, True)
    federation.complete()
    spent = {(e.query, e.clip, e.sigma) for e in federation.node("oem").home.ledger.events()}
    assert spent == {(line["query"], line["clip"], line["sigma"]) for line in risk["lines"]}
    after = data("preview", "--home", home)["runs"]
    assert [r["runs_left"] for r in after if r["algorithm"] == "risk-towers"] == [1]  # type: ignore[attr-defined]


def test_doctor_finds_nothing_on_a_sound_node_and_everything_on_a_broken_one(federation) -> None:
    """Every fault at once, each with what to do."""
    home = federation.home("insurer-c")
    federation.kill("insurer-c")
    assert data("doctor", "--home", home)["ok"] is True
    path = home / "data" / "data.parquet"
    pq.write_table(pq.read_table(path).drop_columns(["bonus_malus"]), path)
    (home / "keys" / "mask.pem").chmod(0o644)
    (home / "ledger.db").write_bytes(b"")
    pins = (home / "pins.toml").read_text()
    (home / "pins.toml").write_text(pins[: pins.rindex("[[pin]]")])
    found = data("doctor", "--home", home)
    wrong = {check["name"] for check in found["checks"] if check["faults"]}  # type: ignore[attr-defined]
    uid = "urn:convoy:contract:risk"
    assert wrong == {"keys", "ledger", f"contract {uid}", f"data for {uid}"}
    federation.home("insurer-c").joinpath("node.toml").write_text("schema = 1")
    assert data("doctor", "--home", home)["ok"] is False
    (home / "keys" / "mask.pem").chmod(0o600)


def test_a_withdrawal_by_hand_leaves_the_person_out_of_the_next_run(federation) -> None:
    """Recorded beside the running node."""
    home = federation.home("insurer-c")
    person = pq.read_table(home / "data" / "data.parquet").column("person_id")[0].as_py()
    before = data("preview", "--home", home)["runs"][0]["persons"]  # type: ignore[index]
    run("consent", "withdraw", person, "--contract", "risk", "--home", home)
    assert data("preview", "--home", home)["runs"][0]["persons"] == before - 1  # type: ignore[index,operator]
    with pytest.raises(NodeError):
        run("consent", "withdraw", "nobody", "--contract", "risk", "--home", home)


def test_a_node_is_made_pinned_and_given_consents_by_commands_alone(prepared, tmp_path: Path) -> None:
    """init, pin, consent import, doctor."""
    keys = tmp_path / "log.keys"
    keys.write_text("# the log of Convoy\n" + "\n".join(prepared.log.vkeys) + "\n")
    home = tmp_path / "node"
    made = data("init", "--home", home, "--party", "did:web:insurer-z.example", "--role", "insurer", "--log-keys", keys)
    assert len(str(made["fingerprint"]).split()) == 8
    pinned = data("pin", prepared.folder / "oem" / "card.json", "--home", home)
    assert list(pinned["pinned"]) == ["did:web:oem.example"]  # type: ignore[call-overload]
    with (home / "node.toml").open("a") as settings:  # a contract that is still to be signed
        settings.write('c = "urn:c"\n')
    table = tmp_path / "consents.csv"
    table.write_text(
        "local_id,contract,given,until,notice,purpose,recipients,separate,age,link_id,counterpart\n"
        "P1,urn:c,2027-01-01T00:00:00Z,open-ended,n@1,convoy:RiskModelTraining,did:web:oem.example,true,40,,\n"
    )
    assert data("consent", "import", table, "--home", home) == {"rows": 1, "contractNotSigned": 1}
    table.write_text(table.read_text().replace(",40,", ",old,").replace("open-ended", ""))
    with pytest.raises(NodeError) as refused:
        run("consent", "import", table, "--home", home)
    assert len(refused.value.reasons) == 2


def test_a_refusal_on_the_command_line_is_a_sentence_and_no_trace(tmp_path: Path) -> None:
    """Cause and fix on stderr, exit code 1."""
    command = [sys.executable, "-m", "convoy_node.cli", "status", "--home", str(tmp_path / "none")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "HOME_REFUSED" in done.stderr
    assert "Traceback" not in done.stderr
    assert not done.stdout
