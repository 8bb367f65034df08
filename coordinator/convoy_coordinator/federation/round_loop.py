"""The round loop of one run, in the order of docs/protocol.md.

Guarantees: no exchange before the run's authorisation is in a checkpoint that a quorum of witnesses has cosigned; the
contract's standing is asked again before every batch; a run that stops says why, and every node is told to settle.
Trusts nobody with data: what arrives here are decisions, statements, bucketed counts, sealed mail and masked shares.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from convoy_contracts.decide.reasons import REASONS
from convoy_coordinator.federation import evaluation as gates
from convoy_coordinator.federation.assignment import Assignment
from convoy_coordinator.federation.errors import FederationError, NodeRefused, ProtocolBroken, QuorumMissing
from convoy_coordinator.federation.exchange import Exchange
from convoy_coordinator.federation.lists import ListsJudged, check_lists
from convoy_coordinator.federation.port import CoordinatorPort
from convoy_coordinator.federation.row_audit import audit_rows
from convoy_models.gates import floor_of
from convoy_models.holdout import Evaluation, Word
from convoy_models.messages import Payload
from convoy_models.plan import PlannedQuery
from convoy_models.recommend.judged import read_lists
from convoy_models.recommend.model import RecommendFit, RecommendModel
from convoy_models.recommend.towers import TowersFit, TowersModel, asked_of
from convoy_models.risk.cann import tables_fit
from convoy_models.risk.fit import Ask, RiskFit, Sums, drive
from convoy_models.risk.model import RiskModel
from convoy_models.risk.pairs_model import PairsModel
from convoy_models.risk.severity import SeverityModel, severity_fit
from convoy_models.sums import open_sum

Floats = npt.NDArray[np.float64]
Model = RiskModel | SeverityModel | PairsModel | RecommendModel | TowersModel
FITS: Mapping[str, Callable[..., Any]] = {
    "risk-towers/1": RiskFit,
    "severity-towers/1": severity_fit,
    "risk-pairs/1": tables_fit,
    "recommend-items/1": RecommendFit,
    "recommend-towers/1": TowersFit,
}
"""The optimiser of each kind of specification."""
WITNESS_STALE = "WITNESS_STALE"
WITNESSES_A_NOTE = 20
"""Two lines each, four while a contract pins a former pair of keys, and a note carries at most 100."""
WITNESS_ATTEMPTS = 6
Progress = Callable[[Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Evaluated:
    """What was said about a candidate: its evaluation where persons are held out, and each party's words after trying it."""

    evaluation: Evaluation | None
    words: Mapping[str, Word]
    attacks: Mapping[str, gates.Attacked]


class RoundLoop:
    """Drive one run over connected nodes.

    Args:
        run: what to do.
        exchange: the connected nodes.
        port: the coordinator.
        progress: told after every step, with plain facts fit for the page.
    """

    def __init__(self, run: Assignment, exchange: Exchange, port: CoordinatorPort, progress: Progress) -> None:
        self._run = run
        self._exchange = exchange
        self._port = port
        self._progress = progress
        self.attempt = 1
        self._dealt: set[str] = set()
        self._spent_mu2: dict[str, float] = {}
        self._asked: dict[str, object] = {}

    # Steps, in order ----------------------------------------------------------------------------------------------

    def hello(self) -> dict[str, int]:
        """Ask who is there; return each witness's last size.

        Raises:
            QuorumMissing: a party that the run needs has no connected node.
        """
        missing = sorted(set(self._run.needed) - set(self._exchange.parties))
        if missing:
            raise QuorumMissing(
                f"no connected node; the run needs {len(self._run.needed)} and lacks {', '.join(missing)}",
                party=missing[0],
                fix="Start the missing nodes and run again.",
            )
        answers = self._exchange.ask({p: ("hello", Payload({})) for p in self._exchange.parties})
        return {party: int(answer.data["witness"]["size"]) for party, answer in answers.items()}

    def witness(self, sizes: Mapping[str, int]) -> tuple[str, int]:
        """Have a fresh checkpoint cosigned by every connected node; return (cosigned note, size).

        A node that is up on the partner channel cosigns there too, so its witness may have moved on since it said its size;
        then it says so (tlog-witness: 409), and is asked again from where it is, with a checkpoint that is not older.

        Raises:
            NodeRefused: a witness saw a rolled-back or rewritten log.
            QuorumMissing: too few cosignatures for the log's policy.
        """
        for _ in range(WITNESS_ATTEMPTS - 1):
            try:
                return self._cosigned(sizes)
            except NodeRefused as refused:
                if refused.code != WITNESS_STALE:
                    raise
            sizes = self.hello()
        return self._cosigned(sizes)

    def _cosigned(self, sizes: Mapping[str, int]) -> tuple[str, int]:
        note = self._port.checkpoint()
        size = int(note.splitlines()[1])
        questions = {
            party: (
                "witness",
                Payload(
                    {
                        "checkpoint": note,
                        "oldSize": old,
                        "proof": self._port.consistency(old, size) if 0 < old < size else [],
                    }
                ),
            )
            for party, old in sizes.items()
        }
        answers = self._exchange.ask(questions)
        lines = [str(answer.data["cosignatures"]) for _, answer in sorted(answers.items())]
        text, _, signed = note.partition("\n\n")
        own = [line for line in signed.splitlines(keepends=True) if line.startswith(f"— {text.splitlines()[0]} ")]
        body = f"{text}\n\n{''.join(own)}"
        standing: Mapping[str, Any] = {}
        for start in range(0, len(lines), WITNESSES_A_NOTE):
            standing = self._port.cosignatures(body + "".join(lines[start : start + WITNESSES_A_NOTE]))
        if not standing.get("quorum", False):
            raise QuorumMissing(
                f"checkpoint {size} has {standing.get('cosigned', 0)} cosignatures, the policy needs {standing.get('needed')}",
                fix="Bring more witnesses up; a run starts only under a witnessed checkpoint.",
            )
        return self._port.checkpoint_of(size), size

    def _note_for(self, party: str, note: str, size: int) -> str:
        """Return the note with the party's own cosignatures in it, where it has no room for everybody's."""
        is_full = len(self._exchange.parties) > WITNESSES_A_NOTE
        return self._port.checkpoint_of(size, reader=party) if is_full else note

    def authorise(self, index: int, size: int, note: str, entry: bytes) -> dict[str, Any]:
        """Have every needed party decide; return their bucketed row counts.

        Raises:
            NodeRefused: a party's decision is a denial; ``reasons`` are the codes of FORMAT.md.
        """
        run = self._run
        question = {
            "run": run.uid,
            "attempt": self.attempt,
            "contractDigest": run.contract.digest,
            "contractText": run.text,
            "signatures": list(run.signatures),
            "events": list(run.events),
            "request": dict(run.request),
        }
        evidence = {"index": index, "entry": entry.decode(), "proof": self._port.inclusion(index, size)}
        answers = self._exchange.ask(
            {
                party: (
                    "authorise",
                    Payload(question | {"evidence": evidence | {"checkpoint": self._note_for(party, note, size)}}),
                )
                for party in run.needed
            }
        )
        self._log_statements()
        denied = {p: a.data["decision"] for p, a in sorted(answers.items()) if not a.data["decision"]["allow"]}
        if denied:
            party, decision = next(iter(denied.items()))
            raise NodeRefused(
                f"decision: deny, {', '.join(decision['reasons'])}"
                + (f" (also refused by {', '.join(list(denied)[1:])})" if len(denied) > 1 else ""),
                party=party,
                code=str(decision["reasons"][0]),
                reasons=decision["reasons"],
                fix=_fixes(decision["reasons"]),
            )
        rows = {party: int(answer.data.get("rows", 0)) for party, answer in answers.items()}
        holders = [party for party in run.roles.get("oem", ()) if party in rows]  # none where no sum is joint
        joint = sum(rows[party] for party in holders or run.holders)
        floor = floor_of(run.specification)
        if joint < floor:
            raise FederationError(
                f"about {joint} persons, the floor at this epsilon and number of terms is {floor}",
                code="COHORT_TOO_SMALL",
                fix="Wait for more consents, or agree a model with fewer terms.",
            )
        return rows

    def exchange_matrices(self) -> None:
        """Align rows and move every masked matrix once, chunk by chunk."""
        paired = self._paired
        if not paired:
            return
        base = {"run": self._run.uid, "attempt": self.attempt}
        self._exchange.ask({p: ("align", Payload(base)) for p in paired})
        chunk, chunks = 0, 1
        while chunk < chunks:
            answers = self._exchange.ask({p: ("matrix", Payload({**base, "chunk": chunk})) for p in paired})
            chunks = max(int(answer.data["chunks"]) for answer in answers.values())
            chunk += 1
            self._progress({"step": "matrix", "chunk": chunk, "chunks": chunks})
        self._log_statements()  # commitments to rows stand in the log before the first query

    @property
    def _paired(self) -> list[str]:
        """Every party that shares rows with another, sorted."""
        return sorted({p for q in self._run.plan.queries if q.kind != "LOCAL" for p in q.participants})

    def audit_rows(self) -> None:
        """Have the trustee audit the holders' rows where the contract says so; log the outcome whatever it is.

        Raises:
            GateRefused: a finding; nothing is released.
        """
        base = {"run": self._run.uid, "attempt": self.attempt}
        try:
            found = audit_rows(self._run, self._exchange, base, self._asked, self._paired)
        finally:
            self._log_statements()
        if found is not None:
            self._progress({"step": "rows audited", **found})

    def fit(self) -> Model:
        """Ask every planned query and return the model."""
        run = self._run
        steps = cast(
            "Generator[list[Ask], Sums, Model]",
            FITS[run.specification.kind](run.specification, run.plan).steps(),
        )
        done = 0

        def opened(asks: list[Ask]) -> dict[str, Floats]:
            nonlocal done
            sums = self._batch(asks)
            done += len(asks)
            self._count([run.plan[ask.query] for ask in asks])
            self._progress(
                {
                    "step": "query",
                    "done": done,
                    "total": len(run.plan.training.queries),
                    "spentMu2": max(self._spent_mu2.values(), default=0.0),
                    "limitMu2": run.plan.mu2_limit,
                }
            )
            return sums

        return drive(steps, opened)

    def evaluate(self, model: Model) -> Evaluated | ListsJudged:
        """Ask the planned sums about the hold-out, have every holder of claims or histories try the candidate, open the gates.

        Where nobody is held out, every party tries and attacks the candidate with its own persons all the same.

        Raises:
            GateRefused: not better than alone on the hold-out.
            NodeRefused: a party's attack tells members, or its veto.
        """
        if isinstance(model, TowersModel):
            return self._judge_lists(model)
        found = gates.evaluate(self._run, model, self._exchange_sums)
        tried = model.inverse if isinstance(model, SeverityModel) else model  # as the nodes' sums know it
        flat = {name: np.ravel(values).astype(np.float64) for name, values in tried.to_arrays().items()}
        data: dict[str, Any] = {"run": self._run.uid, "attempt": self.attempt}
        arrays: dict[str, Any] = {}
        if isinstance(model, RecommendModel):  # items x items: too much for JSON
            arrays = {f"candidate/{name}": values.view(np.uint64) for name, values in flat.items()}
        else:
            data["candidate"] = {name: values.tolist() for name, values in flat.items()}
        shares: Mapping[str, Mapping[str, Any]] = {}
        if found is not None:
            self._count(self._run.plan.evaluation.queries)
            self._progress({"step": "evaluated", "evaluation": gates.figures(found.evaluation)})
            data["weights"], shares = found.weights, found.shares
        said = self._tried(data, arrays, shares)
        attacks = gates.attacks_of(said)
        self._progress({"step": "attacked", "membership": attacks})
        if found is None:
            return Evaluated(None, {}, attacks)
        words = gates.words_of(said)
        self._progress({"step": "judged", "evaluation": gates.figures(found.evaluation, words)})
        gates.check_utility(self._run, found.evaluation, words)
        return Evaluated(found.evaluation, words, attacks)

    def _tried(
        self, data: dict[str, Any], arrays: Mapping[str, Any], shares: Mapping[str, Mapping[str, Any]]
    ) -> dict[str, dict[str, Any]]:
        """Have every holder of claims or histories try the candidate; return what each said. ``shares``: arrays by party.

        Raises:
            NodeRefused: a party's attack tells members, or its veto.
        """
        answers = self._exchange.ask(
            {p: ("candidate", Payload(data, {}, {**arrays, **shares.get(p, {})})) for p in gates.triers(self._run)}
        )
        said = {party: answer.data for party, answer in answers.items()}
        gates.check_vetoes(said)
        return said

    def _judge_lists(self, model: TowersModel) -> ListsJudged:
        (query,) = self._run.plan.evaluation.queries
        found = read_lists(query, self._batch([Ask(query.id, asked_of(model))])[query.id])
        self._count([query])
        self._progress({"step": "evaluated", "lists": ListsJudged(found, {}, {}).figures()})
        candidate = {name: [float(v) for v in values] for name, values in model.to_arrays().items()}
        data = {"run": self._run.uid, "attempt": self.attempt, "candidate": candidate}
        said = self._tried(data, {}, {})
        judged = ListsJudged(found, gates.words_of(said), gates.attacks_of(said))
        self._progress({"step": "judged", "lists": judged.figures()})
        check_lists(self._run, judged)
        return judged

    def finish(self, manifest_digest: str) -> None:
        """Tell every party that the run is over and log their statements."""
        self._exchange.ask(
            {p: ("finish", Payload({"run": self._run.uid, "release": manifest_digest})) for p in self._run.needed}
        )
        self._log_statements()

    def abort(self, reason: str, lost: str | None = None) -> None:
        """Tell every party that can be reached to settle, each by itself, so that one dead node stops nobody.

        Args:
            reason: a code.
            lost: a party whose node does not answer; it settles by itself when it comes back: spent stays, the rest is
                released.
        """
        for party in self._run.needed:
            if party in self._exchange.parties and party != lost:
                with suppress(FederationError):
                    self._exchange.ask({party: ("abort", Payload({"run": self._run.uid, "reason": reason}))})
                    self._log_statements()

    # One batch of independent queries ------------------------------------------------------------------------------

    def _batch(self, asks: Sequence[Ask]) -> dict[str, Floats]:
        return dict(self._exchange_sums(asks).sums)

    def _exchange_sums(self, asks: Sequence[Ask]) -> gates.Opened:
        run = self._run
        self._still_in_force()
        planned = [(ask, run.plan[ask.query]) for ask in asks]
        self._asked |= {ask.query: ask.weights for ask in asks}
        base = {"run": run.uid, "attempt": self.attempt}
        is_dealt = getattr(run.specification, "backend", None) is None
        if is_dealt:
            self._deal([q for _, q in planned])
        opened = {"WEIGHTED"} if is_dealt else {"WEIGHTED", "DOT"}
        weighted = [(a, q) for a, q in planned if q.kind in opened]
        paired = [(a, q) for a, q in planned if q.kind != "LOCAL"]
        if weighted:
            self._ask_participants("open", weighted, base)
        if paired:
            self._ask_participants("share", paired, base)
        answers = self._ask_participants("close", planned, base)
        sums: dict[str, Floats] = {}
        withheld: dict[str, dict[str, npt.NDArray[np.uint64]]] = {}
        for _, query in planned:
            if query.purpose.startswith("holdout-own"):
                share = answers[query.vectors[-1].parties[0]].arrays.get(query.id)
                if share is None or share.size != query.size:
                    raise ProtocolBroken(f"no share of {query.id!r}", party=query.vectors[-1].parties[0])
                withheld.setdefault(query.matrix.parties[0], {})[query.id] = share
            else:
                sums[query.id] = self._open(query, answers)
        return gates.Opened(sums, withheld)

    def _ask_participants(
        self, action: str, planned: Sequence[tuple[Ask, PlannedQuery]], base: Mapping[str, Any]
    ) -> dict[str, Payload]:
        questions = {}
        for party in sorted({p for _, q in planned for p in q.participants}):
            mine = [{"query": ask.query, "weights": ask.weights} for ask, q in planned if party in q.participants]
            questions[party] = (action, Payload({**base, "asks": mine}))
        return self._exchange.ask(questions)

    def _deal(self, batch: Sequence[PlannedQuery]) -> None:
        """Fetch the trustee's corrections for every paired query of the batch's sweeps, once."""
        if not any(q.kind != "LOCAL" and q.id not in self._dealt for q in batch):
            return
        if self._run.trustee is None:
            raise QuorumMissing("the contract names no trustee", fix="Add a party with role convoy:Trustee.")
        sweeps = {q.sweep for q in batch}
        ids = [
            q.id for q in self._run.plan.queries if q.kind != "LOCAL" and q.sweep in sweeps and q.id not in self._dealt
        ]
        self._exchange.ask(
            {
                self._run.trustee: (
                    "deal",
                    Payload({"run": self._run.uid, "attempt": self.attempt, "queries": ids}),
                )
            }
        )
        self._dealt.update(ids)

    def _open(self, query: PlannedQuery, answers: Mapping[str, Payload]) -> Floats:
        """Add the shares of one query mod 2^64 and decode the noisy sum."""
        shares = {}
        for party in query.participants:
            share = answers[party].arrays.get(query.id)
            if share is None or share.size != query.size:
                raise ProtocolBroken(f"no share of {query.size} numbers for query {query.id!r}", party=party)
            shares[party] = share
        return open_sum(query, shares)

    def _still_in_force(self) -> None:
        standing = self._port.contract_standing(self._run.contract.digest)
        if standing["state"] != "active":
            raise FederationError(
                f"the contract is {standing['state']} now",
                code="CONTRACT_NOT_ACTIVE",
                fix="A run needs a contract in force from its first to its last query.",
            )

    def _count(self, batch: Sequence[PlannedQuery]) -> None:
        for query in batch:
            self._spent_mu2[query.cohort] = self._spent_mu2.get(query.cohort, 0.0) + query.mu2

    def _log_statements(self) -> None:
        entries = self._exchange.take_statements()
        if entries:
            self._port.append(entries)


def _fixes(reasons: Sequence[str]) -> str:
    """Return what to do about each reason of a denial, in the words of the decision's own table."""
    known = [f"{REASONS[reason].fix_en} ({reason})" for reason in reasons if reason in REASONS]
    return "; ".join(known) + "." if known else "See docs/problems for the code."
