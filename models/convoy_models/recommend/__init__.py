"""Recommendation: item-item model from a noisy Gram matrix and a cold-start map from the OEM
profile."""
