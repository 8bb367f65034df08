"""What happened, provably: RFC 6962 log, C2SP formats, statements, evidence, offline verifier.

Formats and invariants: ``audit/SPEC.md``. What a node needs:

    from convoy_audit.note import Signer, Verifier        keys; vkey text
    from convoy_audit.keys import SignatureType            COSIGNATURE_ED25519 for a witness
    from convoy_audit.witness import Witness               add_checkpoint(note, old, proof, time)
    from convoy_audit.witness_store import FileWitnessStore   create(folder), later open(folder)
    from convoy_audit.policy import Policy, make_policy, quorum_of
    from convoy_audit.evidence import Evidence, verify_evidence  -> VerifiedEntry.event
    from convoy_audit.events import RunAuthorised, DecisionMade, LedgerStated, RunSettled, …
    from convoy_audit.statement import sign_statement, open_statement, next_link

What the coordinator needs besides: ``convoy_audit.entry.encode(event) -> bytes`` and
``convoy_coordinator.log``. What the demo and an auditor need: ``convoy_audit.archive.write_pack``,
``verify_pack``, and the command ``convoy-audit``. All raise ``errors.AuditError``.
"""
