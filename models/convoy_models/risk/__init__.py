"""Risk: Poisson frequency with log link and one additive tower per party."""
