"""Consent at a node: history, epochs, receipts, proofs, sources, command line (docs/consent.md)."""
