"""HTTP of the console: the overview page and its two static files.

The page is rendered here, works without JavaScript, and runs none: the content security policy
allows what comes from this address and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from fastapi import APIRouter
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse
from starlette.staticfiles import StaticFiles

from convoy_coordinator.console.pages import Overview
from convoy_coordinator.console.wording import Say
from convoy_coordinator.language import choose_language

_HERE: Final = Path(__file__).parent
HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'self'; script-src 'none'; object-src 'none'; base-uri 'none'; "
        "form-action 'self'; frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
    "Vary": "Accept-Language",
}


def static_files() -> StaticFiles:
    """Return the application that serves ``/static``."""
    return StaticFiles(directory=_HERE / "static")


def router(build: Callable[[Say, str], Overview]) -> APIRouter:
    """Return the route of ``/``.

    Args:
        build: makes the page's content from a language and the address that the page was asked at.
    """
    routes = APIRouter(tags=["console"])
    template = Environment(
        loader=FileSystemLoader(_HERE / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    ).get_template("overview.html")

    @routes.get("/", response_class=HTMLResponse)
    def show(request: Request) -> HTMLResponse:
        """Show how the federation stands, in zh or en (``?lang=``)."""
        say = Say(choose_language(request, default="zh"))
        page = build(say, str(request.base_url).rstrip("/"))
        html = template.render(page=page, say=say)
        return HTMLResponse(html, headers=HEADERS | {"Content-Language": say("html_lang")})

    return routes
