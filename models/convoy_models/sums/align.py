"""Which rows two parties share: sorted link ids, exchanged sealed, intersected at both ends.

A link id is 16 random bytes that a person's consent issued to exactly these two parties under
this contract, so the exchange discloses what the consent already says and cannot be probed
(private_ml.md §1.3). Both lists are padded with random ids to a multiple of 50, so that a relayed
blob shows only a bucketed count.

Two ways to fix the rows. *Common* (the usual one): both lists travel and the rows are the persons in both, so each side learns
who is with whom. *Padded*: only one party, the lister, sends its whole list, which makes the rows; the other side finds its
persons in it (``places_of``) and puts zeros everywhere else. The lister then learns nothing about who is with whom: what it
receives is masked, and it has the same length whoever is a customer. LIMIT: it rests on each link id having been handed to one
other holder only; a person whom two holders list would weigh twice in a sum, and nobody could see it.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from convoy_models.errors import LinksRefused

LINK_BYTES: Final = 16
BUCKET: Final = 50
"""Row counts that leave a node are multiples of this."""
_LINK: Final = np.dtype(f"S{LINK_BYTES}")


def bucket(rows: int) -> int:
    """Return ``rows`` rounded up to a multiple of 50."""
    return -(-rows // BUCKET) * BUCKET


def encode_links(ids: Sequence[bytes], party: str) -> bytes:
    """Return sorted, padded link ids as one byte string for the peer.

    Raises:
        LinksRefused: an id of another size than 16 bytes, or one that repeats.
    """
    own = _array(ids, party)
    padding = np.frombuffer(secrets.token_bytes(LINK_BYTES * (bucket(len(own)) - len(own))), dtype=_LINK)
    return np.sort(np.concatenate([own, padding])).tobytes()


def common_rows(ids: Sequence[bytes], blob: bytes, party: str, peer: str) -> NDArray[np.int64]:
    """Return where in ``ids`` the persons both parties hold are, in the order both use.

    Args:
        ids: own link ids, any order.
        blob: what the peer's ``encode_links`` returned.
        party: own party id, for messages.
        peer: the peer's party id, for messages.

    Raises:
        LinksRefused: ids that repeat or have a wrong size, on either side, or nobody in common.
    """
    if len(blob) % LINK_BYTES:
        raise LinksRefused("the list of link ids has a wrong length.", party=peer)
    own, theirs = _array(ids, party), np.frombuffer(blob, dtype=_LINK)
    if _repeats(theirs):
        raise LinksRefused("a link id appears twice.", party=peer)
    _, order, _ = np.intersect1d(own, theirs, assume_unique=True, return_indices=True)
    if not len(order):
        raise LinksRefused(
            f"{party} and {peer} have no consenting person in common.",
            party=peer,
            fix="Check that both consent registers hold the link ids of this contract.",
        )
    return np.asarray(order, dtype=np.int64)


def places_of(order: bytes, ids: Sequence[bytes], party: str, holder: str) -> NDArray[np.int64]:
    """Return where in ``ids`` each row of an ordered list of link ids is, -1 where nobody is known.

    Raises:
        LinksRefused: a list of a wrong length, ids that repeat, or nobody in common.
    """
    if not order or len(order) % (LINK_BYTES * BUCKET):
        raise LinksRefused("the list of link ids has a wrong length.", party=holder)
    own, rows = _array(ids, party), np.frombuffer(order, dtype=_LINK)
    if _repeats(rows):
        raise LinksRefused("a link id appears twice.", party=holder)
    _, at_own, at_rows = np.intersect1d(own, rows, assume_unique=True, return_indices=True)
    if not len(at_own):
        raise LinksRefused(
            f"{party} knows no consenting person of {holder}'s rows.",
            party=party,
            fix="Check that the consent registers hold the link ids of this contract.",
        )
    places = np.full(len(rows), -1, dtype=np.int64)
    places[at_rows] = at_own
    return places


def _array(ids: Sequence[bytes], party: str) -> NDArray[Any]:
    if any(len(link) != LINK_BYTES for link in ids):
        raise LinksRefused("a link id is not 16 bytes long.", party=party)
    # fixed-width byte strings: numpy ignores trailing zero bytes in comparisons, which cannot make
    # two different strings of the same width equal
    links = np.frombuffer(b"".join(ids), dtype=_LINK)
    if _repeats(links):
        raise LinksRefused("a link id appears twice.", party=party)
    return links


def _repeats(links: NDArray[Any]) -> bool:
    ordered = np.sort(links)  # several times faster than numpy's unique for byte strings
    return bool((ordered[1:] == ordered[:-1]).any())
