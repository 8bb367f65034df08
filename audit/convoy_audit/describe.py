"""Say in one sentence what an entry states, in English or Chinese, from its verified members only."""

from __future__ import annotations

from convoy_audit import shapes
from convoy_audit.events import Event
from convoy_audit.statement import Statement


def sentence(content: Event | Statement, language: str = "en") -> str:
    """Return ``<instant> <title>: member value, …``; a statement names its party and number."""
    which = 1 if language == "zh" else 0
    event = content.event if isinstance(content, Statement) else content
    members = shapes.write(event)
    when = members.pop("at")
    facts = ", ".join(f"{name} {_short(value)}" for name, value in members.items() if value != [])
    text = f"{when} {event.TITLES[which]}: {facts}"
    if isinstance(content, Statement):
        signed = ("signed by", "签署方")[which]
        text += f" ({signed} {content.party}, #{content.number})"
    return text


def _short(value: object) -> str:
    if isinstance(value, str):
        return value[:23] + "…" if value.startswith("sha256:") else value[:80]
    if isinstance(value, list):
        return "[" + ", ".join(_short(item) for item in value[:8]) + ("…]" if len(value) > 8 else "]")
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {_short(item)}" for key, item in value.items()) + "}"
    return str(value)
