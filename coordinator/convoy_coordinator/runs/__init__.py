"""Runs: the queue, the claim by the ServerApp process, progress, and how each run ended."""
