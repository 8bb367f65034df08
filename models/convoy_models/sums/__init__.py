"""Secure noisy sums: what a node answers with, and what the coordinator can read of it.

``PartySession`` (a data holder), ``DealerSession`` (the trustee) and ``open_sum`` (the coordinator)
are pure state machines: bytes and arrays in, bytes and arrays out. They follow the actions of the
federation:

    action   data holder                               trustee            coordinator
    align    links(peer, ids)                                             relays sealed blobs
    matrix   receive; align(peer); hold(peer, X);      receive (shapes)
             matrix(chunk)
    deal                                               deal(query)
    open     receive; open(query, factors, cap)        (WEIGHTED, TRILINEAR)
    share    receive; share(query[, vectors, cap])
    close    receive; check_ready(query); *ledger*;                       open_sum(query,
             close(query[, local])                                          {party: words})

LOCAL needs ``close`` only, DOT ``share`` and ``close``, WEIGHTED all three. Corrections of the
trustee must have arrived by ``share`` (WEIGHTED) or ``close`` (DOT). Independent queries go
through each action together. Every blob is named ``to|<party>|<tag>`` and relayed as
``from|<sender>|<tag>`` (``messages.relay``); tags are

    align · matrix.<chunk> · shape.<peer> (to the trustee) · deal.<query>.<matrix holder>
    open.<query> · share.<query> · order@<factor holder> (third party of a triple)

A complete DOT query between one carmaker (matrix) and one insurer (vector); the auditor is trustee:

    >>> import numpy as np
    >>> from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
    >>> from convoy_models.masks import PairKeys
    >>> from convoy_models.messages import Payload, relay
    >>> from convoy_models.noise import DiscreteGaussian
    >>> from convoy_models.plan import PlannedQuery, Side
    >>> names = ("did:web:oem.example", "did:web:insurer-a.example", "did:web:auditor.example")
    >>> oem, insurer, auditor = names
    >>> private = {name: X25519PrivateKey.generate() for name in names}
    >>> public = {name: key.public_key().public_bytes_raw() for name, key in private.items()}
    >>> keys = {name: PairKeys(name, private[name], public, "sha256:00") for name in names}

The contract's plan names the query; every side derives the same one:

    >>> holder, other = Side("oem", (oem,)), Side("insurer", (insurer,))
    >>> query = PlannedQuery(
    ...     id="joint/labels/oem", kind="DOT", cohort="joint", module="oem", purpose="labels",
    ...     sweep=0, group=0, columns=(0, 2), shape=(2, 1), clip=1.0, sigma=1e-3, mu2=1e6,
    ...     matrix=holder, vectors=(other,),
    ... )

Each node has a session, the trustee a dealer:

    >>> noise = DiscreteGaussian()
    >>> P = PartySession("run-1", 1, keys[oem], peers=[insurer], trustee=auditor, noise=noise)
    >>> Q = PartySession("run-1", 1, keys[insurer], peers=[oem], trustee=auditor, noise=noise)
    >>> T = DealerSession("run-1", 1, keys[auditor])
    >>> node = {oem: P, insurer: Q, auditor: T}
    >>> def deliver(replies):
    ...     payloads = {sender: Payload(blobs=blobs) for sender, blobs in replies.items()}
    ...     for party, blobs in relay(payloads).items():
    ...         node[party].receive(blobs)

``align``: rows in common, in the same order at both ends. ``matrix``: masked once for the run.

    >>> ids = [bytes([i]) * 16 for i in range(5)]
    >>> deliver({oem: P.links(insurer, ids[:4]), insurer: Q.links(oem, ids[:0:-1])})
    >>> P.align(insurer).tolist(), Q.align(oem).tolist()
    ([1, 2, 3], [3, 2, 1])
    >>> P.hold(insurer, np.array([[1, 0], [0.5, 0.5], [0, 1]]))
    >>> Q.hold(oem, None)
    >>> deliver({oem: P.matrix(0), insurer: Q.matrix(0)})

``deal``, ``share``, ``close``:

    >>> deliver({auditor: T.deal(query)})
    >>> claims = {oem: np.array([1.0, 1.0, 0.0])}
    >>> deliver({oem: P.share(query), insurer: Q.share(query, claims, cap=1.0)})
    >>> P.check_ready(query); Q.check_ready(query)   # then: both ledgers spend, durably
    >>> total = open_sum(query, {oem: P.close(query), insurer: Q.close(query)})
    >>> bool(np.abs(total - [1.5, 0.5]).max() < 0.02)
    True

A TRILINEAR query (three parties, ``triple``) is asked like a WEIGHTED one; its third party takes its
rows in ``matrix``: ``place(factor holder, own ids)`` for each of ``orders``, then ``matrix(1)``.
A WEIGHTED query adds ``open(query, {peer: own factor}, cap)`` at both ends before ``share(query)``.
A LOCAL query is ``close(query, local=clipped sum)``; its masks hide each node's part as soon as two
nodes take part.

Guarantees. The coordinator learns the noisy sums, sizes and timing. A peer learns masked, uniform
values only. The trustee learns shapes (rows in buckets of 50). A step is taken once per attempt
(``TagReused``). Sums never wrap silently.
Does not guarantee: anything against a party that lies about its own rows beyond its caps, nor
against the trustee colluding with a holder (private_ml.md §5.4); durability: the node's ledger
keeps what was spent.
"""

from convoy_models.sums.bilinear import CHUNK_ROWS, Attempt
from convoy_models.sums.dealer import DealerSession
from convoy_models.sums.local import clipped_sum
from convoy_models.sums.opening import fraction_bits, open_sum
from convoy_models.sums.session import PartySession
from convoy_models.sums.triple import Triple, triples_of

__all__ = [
    "CHUNK_ROWS",
    "Attempt",
    "DealerSession",
    "PartySession",
    "Triple",
    "clipped_sum",
    "fraction_bits",
    "open_sum",
    "triples_of",
]
