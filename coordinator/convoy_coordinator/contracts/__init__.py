"""Contracts: offered documents, verified signatures, and the state that follows from them."""
