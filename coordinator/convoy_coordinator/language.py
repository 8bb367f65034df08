"""Choose between the two languages of every sentence for people: zh (Simplified Chinese) and en."""

from __future__ import annotations

from typing import Literal

from starlette.requests import Request

Language = Literal["zh", "en"]


def choose_language(request: Request, default: Language = "en") -> Language:
    """Return the language of an answer: ``?lang=``, else ``Accept-Language``, else the default."""
    asked = _known(request.query_params.get("lang", ""))
    if asked is not None:
        return asked
    best: tuple[float, Language] | None = None
    for part in request.headers.get("accept-language", "").split(","):
        tag, _, parameters = part.strip().partition(";")
        language = _known(tag)
        weight = _weight(parameters)
        if language is not None and weight > 0 and (best is None or weight > best[0]):
            best = (weight, language)
    return best[1] if best is not None else default


def _known(tag: str) -> Language | None:
    head = tag.strip().lower().split("-", 1)[0]
    if head == "zh":
        return "zh"
    return "en" if head == "en" else None


def _weight(parameters: str) -> float:
    name, _, value = parameters.strip().partition("=")
    if name.strip() != "q":
        return 1.0
    try:
        return float(value)
    except ValueError:
        return 0.0
