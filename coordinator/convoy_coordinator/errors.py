"""The coordinator's errors.

    CoordinatorError          everything below; carries code, party, cause and fix
    ├── Problem               what a caller did cannot be done; answered as RFC 9457
    └── SetupError            the home folder, settings or database do not allow a start

Untrusted input can raise nothing but ``Problem``. ``code`` is stable English; the sentences for
people (zh and en) stand in the catalogue of ``problems``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Fault:
    """One of the things that are wrong with an input: where, and what."""

    pointer: str
    cause: str

    def as_json(self) -> dict[str, str]:
        """Return the member of ``errors`` in a problem document."""
        return {"pointer": self.pointer, "cause": self.cause}


class CoordinatorError(Exception):
    """The root of every error of this package."""

    def __init__(self, code: str, cause: str, *, party: str | None = None, fix: str | None = None) -> None:
        super().__init__(f"{code}: {cause}" + (f" (party: {party})" if party else "") + (f" Fix: {fix}" if fix else ""))
        self.code = code
        self.cause = cause
        self.party = party
        self.fix = fix


class Problem(CoordinatorError):
    """A request that is refused, with every fault that was found in it.

    Args:
        code: a key of ``problems.CATALOGUE``.
        cause: what happened, for this very request; never a secret, never row data.
        party: whom the problem concerns, where there is one.
        fix: what to do, where the catalogue's sentence is too general.
        faults: all faults at once, for inputs with several.
    """

    def __init__(
        self,
        code: str,
        cause: str,
        *,
        party: str | None = None,
        fix: str | None = None,
        faults: Sequence[Fault] = (),
    ) -> None:
        super().__init__(code, cause, party=party, fix=fix)
        self.faults = tuple(faults)


class SetupError(CoordinatorError):
    """The coordinator cannot start: no home, a bad setting, an old database."""
