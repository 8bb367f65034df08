"""Generated pages say what the programs do now, and leave nothing out."""

from __future__ import annotations

import re
from types import ModuleType

MEND = "mend with: .venv/bin/python docs/generate.py"


def test_every_generated_page_is_up_to_date(generate: ModuleType) -> None:
    """Problems, commands, settings, events and the lawyers' tables equal what the programs say."""
    assert generate.stale() == [], MEND


def test_every_setting_and_variable_is_described(generate: ModuleType) -> None:
    """What the programs read and what docs/generate.py describes are the same."""
    assert generate.undescribed() == [], "add or remove it in NODE_SETTINGS or ENVIRONMENT of docs/generate.py"


def test_every_command_and_option_has_a_sentence(generate: ModuleType) -> None:
    """No option and no command without a line about it; what a command takes is said in its own line."""
    text = generate.pages()["docs/reference/cli.md"]
    empty = [line for line in text.splitlines() if re.fullmatch(r"\| `-.*` \| .*\| +\|", line)]
    bare = re.findall(r"### `([^`]+)`\n\n\n", text)
    assert (empty, bare) == ([], []), "give the option or the command a help text"


def test_every_event_has_a_title_in_both_languages_and_a_sentence(generate: ModuleType) -> None:
    """The catalogue of events is complete."""
    from convoy_audit.events import EVENTS

    assert EVENTS
    for name, event in EVENTS.items():
        title, title_zh = event.TITLES
        assert title, name
        assert not title_zh.isascii(), name
        assert (event.__doc__ or "").strip(), name
