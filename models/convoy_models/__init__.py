"""Learning and privacy mathematics: noisy sums over persons, additive towers, accounting, bundles. No network, clock or database."""
