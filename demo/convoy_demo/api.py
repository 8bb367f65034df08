"""The coordinator's HTTP interface as the demo's operator uses it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import httpx

TIMEOUT_S = 60.0


class DemoFailed(Exception):
    """The demo cannot go on; the text says what happened and what to do."""


class Api:
    """The coordinator, called with the operator's token (and the internal one for summaries)."""

    def __init__(self, url: str, keys: Path) -> None:
        self.url = url
        self._client = httpx.Client(base_url=url, timeout=TIMEOUT_S)
        self._operator = _bearer(keys / "operator.token")
        self._internal = _bearer(keys / "internal.token")

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def wait_ready(self, seconds: float) -> None:
        """Wait until the coordinator answers.

        Raises:
            DemoFailed: it does not.
        """
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                if self._client.get("/readyz").is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.05)
        raise DemoFailed(f"the coordinator at {self.url} was not ready within {seconds:.0f} s")

    def get(self, path: str) -> Any:
        """Read JSON."""
        return self._answer(self._client.get(path))

    def post(self, path: str, content: Any) -> Any:
        """Post as the operator."""
        return self._answer(self._client.post(path, json=content, headers=self._operator))

    def summary(self, run: str, figures: dict[str, Any]) -> None:
        """Add figures to a release, for the page."""
        path = f"/internal/releases/{run}/summary"
        self._answer(self._client.post(path, json={"summary": figures}, headers=self._internal))

    def download(self, path: str, to: Path) -> None:
        """Write an answer to a file."""
        with self._client.stream("GET", path) as response:
            if response.is_error:
                response.read()
                self._answer(response)
            with to.open("wb") as file:
                for piece in response.iter_bytes():
                    file.write(piece)

    @staticmethod
    def _answer(response: httpx.Response) -> Any:
        if response.is_error:
            problem = response.json() if "json" in response.headers.get("content-type", "") else {}
            raise DemoFailed(
                f"{response.request.url.path}: {problem.get('code', response.status_code)} "
                f"{problem.get('cause') or problem.get('detail') or ''} {problem.get('fix') or ''}".strip()
            )
        return response.json() if response.content else {}


def _bearer(file: Path) -> dict[str, str]:
    return {"Authorization": f"Bearer {file.read_text(encoding='utf-8').strip()}"}
