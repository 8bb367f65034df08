"""A witness changes its keys: both pairs sign the change, and a policy that knew the old pair follows it.

    sign_change(party, old, new, at, reason) -> WitnessRotated     what the party states about itself
    check_change(change)                                           raises unless every old and every new key has signed
    follow(policy, changes) -> Policy                              the policy that the changes lead to

An auditor pins a policy once. Years later a pack is cosigned with keys that this policy does not name; the statements of the
change are in the pack, signed by the keys that it does name, and lead from the one to the other, offline. Both pairs count for
one witness then: what the old one has cosigned stays verifiable. After ``compromised`` only the new one counts.

What is signed (never changes): ``convoy.witness.v1.Rotate``, a zero byte, then the SHA-256 of the party's id and of each list of
verifier keys, one a line. No cosignature begins so, and nothing else that these keys sign. What this does not show: that the log
has taken the change up; the entry ``coordinator:witness:followed`` says from where on.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Final, Literal

from convoy_audit.errors import PolicyError, SignatureError
from convoy_audit.events_governance import WitnessRotated
from convoy_audit.keys import sign_raw, verify_raw
from convoy_audit.note import Signer, Verifier
from convoy_audit.policy import Policy

_DOMAIN: Final = b"convoy.witness.v1.Rotate\x00"
Reason = Literal["planned", "compromised"]


def sign_change(
    party: str, old: Sequence[Signer], new: Sequence[Signer], at: datetime, reason: Reason = "planned"
) -> WitnessRotated:
    """Return the change, signed by every old and every new key."""
    old_keys, new_keys = tuple(s.vkey for s in old), tuple(s.vkey for s in new)
    message = _message(party, old_keys, new_keys)
    return WitnessRotated(
        at=at,
        party=party,
        old_keys=old_keys,
        new_keys=new_keys,
        old_proofs=tuple(sign_raw(s.kind, s.seed, message) for s in old),
        new_proofs=tuple(sign_raw(s.kind, s.seed, message) for s in new),
        reason=reason,
    )


def check_change(change: WitnessRotated) -> None:
    """Check a change by itself: same name, same kinds of key, other keys, and all of them have signed.

    Raises:
        SignatureError: WITNESS_CHANGE_WRONG, with what is wrong; SIGNATURE_WRONG where a key has not signed.
    """
    old, new = ([Verifier.parse(key) for key in keys] for keys in (change.old_keys, change.new_keys))
    kinds = ([key.kind for key in old], [key.kind for key in new])
    if not old or kinds[0] != kinds[1] or not all(kind.is_cosignature for kind in kinds[0]):
        raise _wrong("the new keys are not of the same kinds as the old ones", change.party)
    if len({key.name for key in (*old, *new)}) != 1:
        raise _wrong("the witness changes its name with its keys", change.party)
    if {key.public for key in old} & {key.public for key in new}:
        raise _wrong("a key that follows itself", change.party)
    proofs = (*change.old_proofs, *change.new_proofs)
    if len(proofs) != len(old) + len(new):
        raise _wrong(f"{len(proofs)} signatures of {len(old) + len(new)} keys", change.party)
    message = _message(change.party, change.old_keys, change.new_keys)
    for key, proof in zip((*old, *new), proofs, strict=True):
        verify_raw(key.kind, key.public, message, proof)


def follow(policy: Policy, changes: Iterable[WitnessRotated]) -> Policy:
    """Return the policy that changes lead to, in their order; one of keys that the policy does not name changes nothing.

    Raises:
        SignatureError: a change of a witness of this policy that not all of its keys have signed.
        PolicyError: the policy has no room for the change.
    """
    for change in changes:
        group = _group_of(policy, change.old_keys)
        if group is None:
            continue
        check_change(change)
        policy = _changed(policy, group, change)
    return policy


def _group_of(policy: Policy, keys: Sequence[str]) -> str | None:
    """Return the name under which exactly these keys count together."""
    wanted = {Verifier.parse(key) for key in keys}
    if len(wanted) == 1:
        return next((name for name, key in policy.witnesses.items() if key in wanted), None)
    for group in policy.groups.values():
        members = {policy.witnesses.get(member) for member in group.members}
        if members == wanted and group.threshold == len(group.members):
            return group.name
    return None


def _changed(policy: Policy, name: str, change: WitnessRotated) -> Policy:
    """Write the policy anew: the old keys get another name, and under the old name either pair counts, or the new one alone."""
    taken = set(policy.witnesses) | set(policy.groups)
    number = next(n for n in range(1, len(taken) + 3) if not {f"{name}/was-{n}", f"{name}/now-{n}"} & taken)
    was, now = f"{name}/was-{number}", f"{name}/now-{number}"
    lines: list[str] = []
    for line in policy.text.decode("latin-1").splitlines():
        words = line.split()
        if words[:2] not in (["group", name], ["witness", name]):
            lines.append(line)
            continue
        lines.append(" ".join([words[0], was, *words[2:]]))
        lines += [f"witness {now}.{n} {key}" for n, key in enumerate(change.new_keys)]
        lines.append(f"group {now} all {' '.join(f'{now}.{n}' for n in range(len(change.new_keys)))}")
        lines.append(f"group {name} any {f'{was} {now}' if change.reason == 'planned' else now}")
    try:
        return Policy.parse("\n".join([*lines, ""]).encode("latin-1"))
    except UnicodeEncodeError:
        raise PolicyError(f"the change of {name[:80]} does not fit the policy") from None


def _message(party: str, old: Sequence[str], new: Sequence[str]) -> bytes:
    parts = (party, "\n".join(old), "\n".join(new))
    return _DOMAIN + b"".join(hashlib.sha256(part.encode()).digest() for part in parts)


def _wrong(cause: str, party: str) -> SignatureError:
    return SignatureError(cause, code="WITNESS_CHANGE_WRONG", party=party)
