"""Parties: who is enrolled, with which public keys."""
