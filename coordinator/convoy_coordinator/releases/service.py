"""Publish bundles: check the files against the manifest, log the manifest's digest, sign it, then
publish.

Order, and what is true if the process dies after each step: 1. files in a hidden folder, on disk
(nothing is published, the folder is swept at the next release of the run); 2. the entry in the
log (the log knows a digest that nobody can download; the same upload can be repeated and finds its entry); 3. the
folder renamed into place (published; the row follows when the upload is repeated); 4. the row. A
release never changes.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from convoy_audit.events import ReleasePublished
from convoy_audit.witness_store import sync_folder
from convoy_coordinator.body import strict_json
from convoy_coordinator.db.session import SessionFactory, writing
from convoy_coordinator.errors import Fault, Problem
from convoy_coordinator.journal import Author, Clock, Journal
from convoy_coordinator.log.levels import Level
from convoy_coordinator.releases import store
from convoy_coordinator.releases.store import Release
from convoy_coordinator.runs.service import RunService
from convoy_coordinator.runs.states import RunState
from convoy_coordinator.runs.store import Run

MANIFEST: Final = "manifest.json"
SIGNATURE: Final = "manifest.sig"
MAX_FILES: Final = 64
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}")


@dataclass(frozen=True, slots=True)
class Bundle:
    """The files of a release as they were uploaded, the manifest among them."""

    run: str
    files: Mapping[str, bytes]
    summary: Mapping[str, Any] | None


class ReleaseService:
    """What was released.

    Args:
        sessions: the database.
        journal: the log, written before each effect.
        runs: the runs that releases belong to.
        folder: where published bundles are, one folder for each run.
        key: signs manifests.
        clock: the present instant.
    """

    def __init__(
        self,
        sessions: SessionFactory,
        journal: Journal,
        runs: RunService,
        folder: Path,
        key: Ed25519PrivateKey,
        clock: Clock,
    ) -> None:
        self._sessions = sessions
        self._journal = journal
        self._runs = runs
        self._folder = folder
        self._key = key
        self._clock = clock

    def publish(self, bundle: Bundle) -> tuple[Release, Path]:
        """Publish a bundle; publishing the same one again returns what is there.

        Raises:
            Problem: RUN_UNKNOWN, RUN_STATE_WRONG for a run that was stopped, RELEASE_KNOWN or
                RELEASE_MALFORMED.
        """
        run = self._runs.get(bundle.run)
        if run.state not in {RunState.RUNNING, RunState.FINISHED}:
            raise Problem("RUN_STATE_WRONG", f"run {run.uid} is {run.state.value}", party=run.party)
        manifest_json = _check_files(bundle.files)
        _check_belongs(manifest_json, run)
        manifest = bundle.files[MANIFEST]
        digest = _digest(manifest)
        place = self._folder / run.uid
        with self._journal.order():
            known = self._find(run.uid)
            if known is not None:
                if known.manifest_digest == digest:
                    return known, place
                raise Problem("RELEASE_KNOWN", f"run {run.uid} released {known.manifest_digest}")
            files = dict(bundle.files) | {SIGNATURE: self._key.sign(manifest)}
            hidden = self._write(run.uid, files)
            index = self._logged(run, digest)
            if index is None:
                index = self._journal.record(_published(run, digest, manifest_json))
            if place.exists():
                shutil.rmtree(place)  # of an upload that died before its row; no row, so never shown
            hidden.rename(place)
            sync_folder(self._folder)
            release = Release(
                run=run.uid,
                manifest_digest=digest,
                files={n: {"digest": _digest(c), "size": len(c)} for n, c in sorted(files.items())},
                summary=None if bundle.summary is None else dict(bundle.summary),
                published_at=self._clock(),
                log_index=index,
            )
            with writing(self._sessions) as session:
                store.insert_release(session, release)
        return release, place

    def add_summary(self, uid: str, summary: Mapping[str, Any]) -> Release:
        """Add figures that were measured after the release; they are shown, never signed.

        Raises:
            Problem: RELEASE_UNKNOWN.
        """
        known = self.get(uid)
        with writing(self._sessions) as session:
            store.set_summary(session, uid, (known.summary or {}) | dict(summary))
        return self.get(uid)

    def get(self, uid: str) -> Release:
        """Return the release of a run.

        Raises:
            Problem: RELEASE_UNKNOWN.
        """
        release = self._find(uid)
        if release is None:
            raise Problem("RELEASE_UNKNOWN", f"run {uid[:80]!r} has no release")
        return release

    def file(self, uid: str, name: str) -> Path:
        """Return where a published file is.

        Raises:
            Problem: RELEASE_UNKNOWN; only names that the release lists are looked for.
        """
        release = self.get(uid)
        if name not in release.files:
            raise Problem("RELEASE_UNKNOWN", f"release {uid[:80]!r} has no file {name[:128]!r}")
        return self._folder / release.run / name

    def for_download(self, uid: str, name: str) -> Path:
        """Return where a published file is, once a quorum of witnesses has cosigned the release.

        Raises:
            Problem: as ``file``; LOG_NOT_WITNESSED.
        """
        path = self.file(uid, name)
        self._journal.require(self.get(uid).log_index, Level.WITNESSED, f"release {uid} is not to be used yet")
        return path

    def all(self) -> tuple[Release, ...]:
        """Return every release, newest first."""
        with self._sessions() as session:
            return store.all_releases(session)

    def _find(self, uid: str) -> Release | None:
        with self._sessions() as session:
            return store.find_release(session, uid)

    def _logged(self, run: Run, digest: str) -> int | None:
        """Return where an upload that died half-way has logged its manifest already."""
        found = self._journal.find(
            run.log_index, lambda event: isinstance(event, ReleasePublished) and event.run == run.uid
        )
        if found is None:
            return None
        index, event = found
        if isinstance(event, ReleasePublished) and event.manifest != digest:
            raise Problem("RELEASE_KNOWN", f"run {run.uid} has logged {event.manifest}")
        return index

    def _write(self, uid: str, files: Mapping[str, bytes]) -> Path:
        hidden = self._folder / f".{uid}.part"
        if hidden.exists():
            shutil.rmtree(hidden)
        hidden.mkdir(parents=True, mode=0o755)
        for name, content in files.items():
            with (hidden / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        sync_folder(hidden)
        return hidden


def _published(run: Run, digest: str, manifest: Mapping[str, Any]) -> Author:
    return lambda at: ReleasePublished(
        at=at,
        run=run.uid,
        contract=run.contract_digest,
        manifest=digest,
        recipients=tuple(manifest.get("recipients", ())),
    )


def _check_files(files: Mapping[str, bytes]) -> dict[str, Any]:
    """Refuse a bundle whose files are not exactly those that its manifest names, byte for byte."""
    if len(files) > MAX_FILES:
        raise Problem("RELEASE_MALFORMED", f"{len(files)} files; at most {MAX_FILES}")
    faults = [
        Fault(f"/files/{name[:128]}", "is not a plain file name")
        for name in files
        if _NAME.fullmatch(name) is None or name == SIGNATURE
    ]
    if MANIFEST not in files:
        faults.append(Fault(f"/files/{MANIFEST}", "missing"))
    if faults:
        raise Problem("RELEASE_MALFORMED", f"{len(faults)} fault(s) in the bundle", faults=faults)
    value, named = _named(files[MANIFEST])
    for name in sorted(set(named) | (set(files) - {MANIFEST})):
        if name not in named:
            faults.append(Fault(f"/files/{name}", "is not in the manifest"))
        elif name not in files:
            faults.append(Fault(f"/files/{name[:128]}", "is in the manifest, but was not sent"))
        elif named[name] != _digest(files[name]):
            faults.append(Fault(f"/files/{name}", "has another digest than the manifest says"))
    if faults:
        raise Problem("RELEASE_MALFORMED", f"{len(faults)} fault(s) in the bundle", faults=faults)
    return value


def _check_belongs(manifest: Mapping[str, Any], run: Run) -> None:
    wanted = {"run": run.uid, "contractDigest": run.contract_digest}
    faults = [
        Fault(f"/files/{MANIFEST}/{name}", f"must be {value}")
        for name, value in wanted.items()
        if manifest.get(name) != value
    ]
    if faults:
        raise Problem("RELEASE_MALFORMED", "the manifest is of another run", faults=faults)


def _named(manifest: bytes) -> tuple[dict[str, Any], dict[str, str]]:
    value = strict_json(manifest)
    files = value.get("files") if isinstance(value, dict) else None
    if not isinstance(files, dict) or not all(isinstance(d, str) for d in files.values()):
        raise Problem(
            "RELEASE_MALFORMED",
            "the manifest has no object 'files' of names and digests",
            faults=[Fault(f"/files/{MANIFEST}/files", "missing")],
        )
    return value, files


def _digest(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"
