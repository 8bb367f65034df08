"""Ledgers: what each party has stated about its own privacy budget, read from the log."""
