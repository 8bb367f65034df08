"""Read a request body as strict JSON and as a closed value, with every fault at once.

Refused before any field is looked at: more bytes than the settings allow (while they arrive, not
after), text that is not UTF-8 JSON, a key twice in one object, NaN and Infinity, nesting that the
parser cannot follow. The documents of contracts are stricter still; ``convoy_contracts`` judges
those.
"""

from __future__ import annotations

import json
import math
from collections.abc import Awaitable, Callable
from typing import Any, Final, NoReturn, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.problems import problem_response

MAX_FAULTS: Final = 50


class Input(BaseModel):
    """A value that comes from outside: frozen, and no unknown member is taken."""

    model_config = ConfigDict(extra="forbid", frozen=True)


InputT = TypeVar("InputT", bound=Input)


def strict_json(data: bytes) -> Any:
    """Parse JSON, refusing what two parsers could read differently.

    Raises:
        Problem: ``BODY_MALFORMED``.
    """
    try:
        value = json.loads(
            data.decode("utf-8"),
            object_pairs_hook=_distinct,
            parse_constant=_no_constant,
            parse_float=_finite,
        )
        if b"\\u" in data:
            _refuse_unstorable(value)
    except UnicodeError:
        raise Problem("BODY_MALFORMED", "the body is not UTF-8 or has a lone surrogate") from None
    except json.JSONDecodeError as error:
        raise Problem("BODY_MALFORMED", f"{error.msg} at line {error.lineno}, column {error.colno}") from None
    except RecursionError:
        raise Problem("BODY_MALFORMED", "the body is nested too deeply") from None
    except ValueError:  # an integer of more digits than Python converts
        raise Problem("BODY_MALFORMED", "a number in the body is too long") from None
    return value


def read_input(model: type[InputT], data: bytes) -> InputT:
    """Parse and validate a body.

    Raises:
        Problem: ``BODY_MALFORMED``, or ``INPUT_INVALID`` with one fault for each wrong member.
    """
    value = strict_json(data)
    try:
        return model.model_validate(value)
    except ValidationError as error:
        found = error.errors(include_url=False, include_context=False, include_input=False)
        faults = [Fault("/" + "/".join(map(str, e["loc"])), e["msg"]) for e in found[:MAX_FAULTS]]
        raise Problem("INPUT_INVALID", f"{len(found)} member(s) are wrong", faults=faults) from None


def body(model: type[InputT]) -> Callable[[Request], Awaitable[InputT]]:
    """Return the dependency that reads a ``model`` from the request."""

    async def read(request: Request) -> InputT:
        return read_input(model, await request.body())

    return read


def described(model: type[Input]) -> dict[str, Any]:
    """Return the ``openapi_extra`` of a route that reads ``model``; nested models stand in line."""
    schema = model.model_json_schema()
    definitions = schema.pop("$defs", {})
    content = {"application/json": {"schema": _inline(schema, definitions)}}
    return {"requestBody": {"required": True, "content": content}}


class BodyLimit:
    """Middleware: refuse a body that is longer than allowed, while it arrives.

    Args:
        app: the application.
        limit: bytes for every path but those of ``larger``.
        larger: path prefix -> bytes, for uploads.
    """

    def __init__(self, app: ASGIApp, *, limit: int, larger: dict[str, int]) -> None:
        self._app = app
        self._limit = limit
        self._larger = larger

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Count the bytes of one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        limit = next((n for path, n in self._larger.items() if scope["path"].startswith(path)), self._limit)
        declared = dict(scope["headers"]).get(b"content-length", b"0")
        if declared.isdigit() and int(declared) > limit:
            answer = problem_response(Request(scope), _too_large(limit))
            await answer(scope, receive, send)
            return
        seen = 0

        async def counted() -> Message:
            nonlocal seen
            message = await receive()
            seen += len(message.get("body", b""))
            if seen > limit:
                raise _too_large(limit)
            return message

        await self._app(scope, counted, send)


def _inline(schema: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(schema, list):
        return [_inline(item, definitions) for item in schema]
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema:
        return _inline(definitions[schema["$ref"].rsplit("/", 1)[-1]], definitions)
    return {key: _inline(value, definitions) for key, value in schema.items()}


def _too_large(limit: int) -> Problem:
    return Problem("BODY_TOO_LARGE", f"more than {limit} bytes")


def _distinct(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        keys = [key for key, _ in pairs]
        twice = sorted({key for key in keys if keys.count(key) > 1})
        raise Problem("BODY_MALFORMED", f"key(s) more than once in one object: {', '.join(twice)[:200]}")
    return result


def _finite(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise Problem("BODY_MALFORMED", f"{text[:40]} is too large for a number")
    return value


def _refuse_unstorable(value: Any) -> None:
    """Refuse what no database column takes: lone surrogates (UnicodeError) and NUL characters."""
    if "\\u0000" in json.dumps(value, ensure_ascii=False).encode("utf-8").decode("utf-8"):
        raise Problem("BODY_MALFORMED", "a string in the body has a NUL character")


def _no_constant(name: str) -> NoReturn:
    raise Problem("BODY_MALFORMED", f"{name} is not JSON")
