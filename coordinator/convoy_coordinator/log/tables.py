"""The tables of the log; rows are only inserted, never changed or removed (SPEC.md L6).

``log_entry``         one row an entry: its exact bytes and its leaf hash
``log_frontier``      one row a commit: the size after it and the roots of the perfect subtrees
``log_checkpoint``    every checkpoint that was signed, as the log signed it
``log_cosignature``   every cosignature that was verified

A database role that may only SELECT and INSERT here is enough.
"""

from __future__ import annotations

from sqlalchemy import BigInteger, ForeignKey, Integer, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from convoy_coordinator.db import Base

Number = BigInteger().with_variant(Integer, "sqlite")


class LogEntry(Base):
    """An entry at its index."""

    __tablename__ = "log_entry"

    idx: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    leaf: Mapped[bytes] = mapped_column(LargeBinary(32))
    body: Mapped[bytes] = mapped_column(LargeBinary)


class LogFrontier(Base):
    """The tree after a commit: all that is needed to append, and to notice a lost entry."""

    __tablename__ = "log_frontier"

    size: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    frontier: Mapped[bytes] = mapped_column(LargeBinary)


class LogCheckpoint(Base):
    """A checkpoint that the log has signed; at most one a size."""

    __tablename__ = "log_checkpoint"

    size: Mapped[int] = mapped_column(Number, primary_key=True, autoincrement=False)
    root: Mapped[bytes] = mapped_column(LargeBinary(32))
    note: Mapped[str] = mapped_column(Text)


class LogCosignature(Base):
    """A witness's signature line on a checkpoint, verified when it came in."""

    __tablename__ = "log_cosignature"

    size: Mapped[int] = mapped_column(Number, ForeignKey("log_checkpoint.size"), primary_key=True)
    name: Mapped[str] = mapped_column(String(255), primary_key=True)
    key_id: Mapped[str] = mapped_column(String(8), primary_key=True)
    party: Mapped[str] = mapped_column(String(255), index=True)
    time_s: Mapped[int] = mapped_column(Number)
    line: Mapped[str] = mapped_column(Text)
