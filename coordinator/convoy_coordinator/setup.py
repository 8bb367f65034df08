"""Make the coordinator's home folder: explicit, once, and never over an existing one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from convoy_coordinator.db.migrate import prepare
from convoy_coordinator.db.session import open_engine
from convoy_coordinator.errors import SetupError
from convoy_coordinator.keys import create_keys, read_keys
from convoy_coordinator.settings import SETTINGS_FILE, Settings, read_settings
from convoy_coordinator.wiring import log_keys

PUBLIC_KEYS_FILE = "log-keys.txt"
"""The log's verifier keys, one a line: what partners pin."""


def create_home(home: Path, **settings: Any) -> dict[str, Any]:
    """Create folder, keys, ``coordinator.toml`` and the database.

    Args:
        home: must not hold a coordinator yet.
        settings: members of ``Settings`` to write down (name, origin, port …).

    Returns:
        Public facts: home, origin, log verifier key and release key.

    Raises:
        SetupError: the home exists, or a setting is wrong; nothing is left half-made that a
            second call would mind.
    """
    home = home.expanduser().resolve()
    if (home / SETTINGS_FILE).exists():
        raise SetupError(
            "HOME_EXISTS",
            f"{home.name} already is a coordinator's home",
            fix="Take another folder.",
        )
    given = {name: value for name, value in settings.items() if value is not None}
    read = read_settings(home, **given)
    home.mkdir(mode=0o700, parents=True, exist_ok=True)
    create_keys(read.keys_folder)
    read.releases_folder.mkdir(exist_ok=True)
    engine = open_engine(read.url)
    prepare(engine)
    engine.dispose()
    facts = public_facts(read)
    (home / PUBLIC_KEYS_FILE).write_text("".join(f"{key}\n" for key in facts["logKeys"]))
    # Last, so that a home without this file was never finished and may be removed.
    (home / SETTINGS_FILE).write_text(_toml(given), encoding="utf-8")
    return facts


def public_facts(settings: Settings) -> dict[str, Any]:
    """Return what may be told to everybody: the place, and the public halves of the keys."""
    keys = read_keys(settings.keys_folder)
    return {
        "home": str(settings.home),
        "origin": settings.origin,
        "logKeys": list(log_keys(settings, keys)),
        "logKeysFile": str(settings.home / PUBLIC_KEYS_FILE),
        "releaseKey": keys.release_public.hex(),
    }


def _toml(values: dict[str, Any]) -> str:
    """Write flat settings; strings are quoted as JSON, which TOML reads the same."""
    lines = [f"{name} = {json.dumps(value, ensure_ascii=False)}" for name, value in values.items()]
    return "# Settings of this coordinator. Secrets are not here: see keys/.\n" + "\n".join(lines) + "\n"
