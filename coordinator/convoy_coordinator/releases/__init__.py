"""Releases: signed bundles, published only after their manifest's digest stands in the log."""
