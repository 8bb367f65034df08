"""The federated rounds: the only part of the coordinator that knows Flower and the models."""
