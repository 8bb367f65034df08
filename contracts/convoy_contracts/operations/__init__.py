"""What both applications show their operators in the same form: logs, health, metrics, traces. Never row data, never a person.

Not part of the pure library: nothing else in this package imports it (import-linter), and it is installed as the extra
``operations``. It stands here because coordinator and node import nothing of each other and both import this distribution.
"""
