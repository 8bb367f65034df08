"""The one adapter to Flower on the coordinator's side: all that touches flwr's internals is here.

Domain code (the ServerApp, the round loop) uses Flower's public words only: ServerApp, Grid,
Message, RecordDict. Why, and what would change our mind: ``docs/decisions/0002-flower-adapter.md``.
"""
