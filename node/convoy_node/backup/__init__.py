"""Copies of a node: sealed backups, restores that cannot make it forget, and catching up with the log."""
