"""What operators watch at a node: health and metrics of its folder. Logs and traces: ``convoy_contracts.operations``."""
