"""A page for every problem, at the address that its RFC 9457 ``type`` names: what it means, what to do, who acts; zh and en.

As HTML for people (no script, no style of its own), as JSON for programs that send ``Accept: application/json``.
"""

from __future__ import annotations

from html import escape

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from convoy_contracts.problems import ACTS, AREAS, PROBLEMS
from convoy_contracts.problems import Problem as Entry
from convoy_coordinator.console.routes import HEADERS
from convoy_coordinator.errors import Problem
from convoy_coordinator.language import Language, choose_language
from convoy_coordinator.problems import PAGES

WORDS: dict[Language, tuple[str, str, str, str, str, str]] = {
    "en": ("en", "What it means", "What to do", "Who acts", "Where it is told", "All problems"),
    "zh": ("zh-CN", "含义", "处理方法", "由谁处理", "出现于", "全部问题"),
}


def router() -> APIRouter:
    """Return ``/problems`` and ``/problems/{code}``."""
    routes = APIRouter(tags=["problems"])

    @routes.get(PAGES, response_class=HTMLResponse)
    def index(request: Request) -> Response:
        """List every problem with its title."""
        language = choose_language(request)
        entries = sorted(PROBLEMS.values(), key=lambda entry: entry.code)
        if _wants_json(request):
            return JSONResponse(
                [facts(entry, language) for entry in entries], headers={"Vary": "Accept, Accept-Language"}
            )
        items = "".join(
            f'<li><a href="{PAGES}/{entry.code}?lang={language}"><code>{entry.code}</code></a> {escape(_title(entry, language))}</li>'
            for entry in entries
        )
        heading = WORDS[language][5]
        return _page(language, heading, f"<h1>{heading}</h1><ul>{items}</ul>")

    @routes.get(PAGES + "/{code}", response_class=HTMLResponse)
    def page(request: Request, code: str) -> Response:
        """Say what a problem means and what to do."""
        entry = PROBLEMS.get(code.upper())
        if entry is None:
            raise Problem("NOT_FOUND", "no problem has this code", fix=f"See {PAGES} for all of them.")
        language = choose_language(request)
        if _wants_json(request):
            return JSONResponse(facts(entry, language), headers={"Vary": "Accept, Accept-Language"})
        return _page(language, entry.code, _body(entry, language))

    return routes


def facts(entry: Entry, language: Language) -> dict[str, object]:
    """Return a problem as JSON values."""
    zh = language == "zh"
    return {
        "code": entry.code, "status": entry.status, "grpc": entry.grpc, "title": _title(entry, language),
        "meaning": entry.cause_zh if zh else entry.cause, "fix": entry.fix_zh if zh else entry.fix,
        "acts": ACTS[entry.acts][zh], "area": AREAS[entry.area][zh],
    }  # fmt: skip


def _title(entry: Entry, language: Language) -> str:
    return entry.title_zh if language == "zh" else entry.title


def _wants_json(request: Request) -> bool:
    accepted = request.headers.get("accept", "")
    return "json" in accepted and "text/html" not in accepted


def _body(entry: Entry, language: Language) -> str:
    known, words = facts(entry, language), WORDS[language]
    told = f"HTTP {entry.status}, gRPC {entry.grpc}" if entry.status else str(known["area"])
    rows = zip(words[1:5], (known["meaning"], known["fix"], known["acts"], told), strict=True)
    listed = "".join(f"<dt>{name}</dt><dd>{escape(str(value))}</dd>" for name, value in rows)
    other: Language = "en" if language == "zh" else "zh"
    links = (
        f'<p><a href="{PAGES}?lang={language}">{words[5]}</a> · '
        f'<a href="?lang={other}" lang="{WORDS[other][0]}">{"English" if other == "en" else "中文"}</a></p>'
    )
    return f"<h1><code>{entry.code}</code></h1><p>{escape(_title(entry, language))}</p><dl>{listed}</dl>{links}"


def _page(language: Language, title: str, body: str) -> HTMLResponse:
    text = WORDS[language][0]
    html = (
        f'<!doctype html><html lang="{text}"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1"><title>{title} · Convoy</title>'
        f'<link rel="stylesheet" href="/static/console.css"><link rel="icon" href="/static/mark.svg" type="image/svg+xml">'
        f"</head><body><main>{body}</main></body></html>"
    )
    return HTMLResponse(html, headers=HEADERS | {"Content-Language": text, "Vary": "Accept, Accept-Language"})
