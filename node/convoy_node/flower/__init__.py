"""The one adapter to Flower on the node's side: all that touches flwr's internals is here.

Domain code (the ClientApp) uses Flower's public words only: ClientApp, Message, RecordDict.
Why, and what would change our mind: ``docs/decisions/0002-flower-adapter.md``.
"""
