"""The witness of a node's folder, opened beside the node: other processes may have it open as well.

    open_witness(home) -> Witness      needs no ledger lock: the store keeps processes apart (flock, compare and set)

It cosigns the node's own log (``node.toml``) and the logs of others that its operator lists in ``witness-logs.txt``, one a
line: ``log <vkey>``, or ``log <vkey> <origin>`` for a log that signs under another name. Lines that begin with # are notes.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

from convoy_audit.errors import AuditError
from convoy_audit.note import Verifier
from convoy_audit.witness import Witness
from convoy_audit.witness_store import FileWitnessStore
from convoy_node.errors import SettingsRefused
from convoy_node.identity import Identity
from convoy_node.settings import Settings

LOGS_FILE: Final = "witness-logs.txt"
FOLDER: Final = "witness"


def open_witness(home: Path) -> Witness:
    """Open the witness of a node's folder.

    Raises:
        NodeError: settings or keys that cannot be used; ``reasons`` lists every wrong line of the list of logs.
        StoreError: its memory is lost or damaged; it does not start again from nothing (SPEC.md W4).
    """
    settings = Settings.load(home)
    identity = Identity.load(home / "keys", settings.party)
    return Witness(identity.witness, pinned_logs(home, settings), FileWitnessStore.open(home / FOLDER))


def pinned_logs(home: Path, settings: Settings) -> dict[str, tuple[Verifier, ...]]:
    """Return the keys of every log that this witness knows, by origin.

    Raises:
        SettingsRefused: lines that are no log.
    """
    logs = {settings.log_origin: tuple(Verifier.parse(key) for key in settings.log_keys)}
    faults = []
    for number, line in enumerate(_lines(home / LOGS_FILE), start=1):
        words = line.split(maxsplit=2)
        if not words or words[0].startswith("#"):
            continue
        try:
            if words[0] != "log" or len(words) < 2:
                raise SettingsRefused("is not: log <vkey> [<origin>]")
            key = Verifier.parse(words[1])
        except (AuditError, SettingsRefused) as error:
            faults.append(f"{LOGS_FILE} line {number}: {error.cause}")
            continue
        origin = words[2].strip() if len(words) == 3 else key.name
        if origin == settings.log_origin:
            faults.append(f"{LOGS_FILE} line {number}: the node's own log is pinned in node.toml only")
            continue
        logs[origin] = (*logs.get(origin, ()), key)
    if faults:
        raise SettingsRefused(f"{LOGS_FILE} has {len(faults)} wrong lines.", party=settings.party, reasons=faults)
    return logs


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsRefused(f"{path.name} cannot be read.") from error
