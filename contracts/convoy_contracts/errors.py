"""Errors of this package.

    ContractsError
    ├── DocumentMalformed     a text is not a contract document; ``problems`` lists every fault found
    ├── SignatureRefused      a signature cannot be made or does not verify
    ├── EventRefused          an event comes in a wrong order or from somebody who may not; ``reason`` is stable
    ├── ArgumentRefused       a caller asked for something that is no contract (builders, command line)
    ├── InputMalformed        a file is no world to decide on
    └── FileUnreadable        a file that a command names cannot be read

A refusal by ``decide`` is a result, not an error.
"""

from __future__ import annotations

from collections.abc import Sequence


class ContractsError(Exception):
    """Root: carries a stable ``code``, the ``cause``, and the ``fix``."""

    code = "CONTRACTS"

    def __init__(self, cause: str, *, fix: str = "", problems: Sequence[str] = ()) -> None:
        super().__init__(cause)
        self.cause = cause
        self.fix = fix
        self.problems = tuple(problems)


class DocumentMalformed(ContractsError):
    """A text is not a contract document (FORMAT.md §3)."""

    code = "DOCUMENT_MALFORMED"


class SignatureRefused(ContractsError):
    """A signature cannot be made, or does not verify (FORMAT.md §4)."""

    code = "SIGNATURE_REFUSED"


class EventRefused(ContractsError):
    """An event may not happen (lifecycle.TABLE); ``reason`` is one of the names in ``lifecycle.judge``."""

    code = "EVENT_REFUSED"

    def __init__(self, reason: str, cause: str, *, fix: str = "") -> None:
        super().__init__(cause, fix=fix)
        self.reason = reason


class ArgumentRefused(ContractsError):
    """A caller asked for something that is no contract."""

    code = "ARGUMENT_REFUSED"


class InputMalformed(ContractsError):
    """A file is no world to decide on (FORMAT.md §2)."""

    code = "INPUT_MALFORMED"


class FileUnreadable(ContractsError):
    """A file that a command names cannot be read."""

    code = "FILE_UNREADABLE"
