"""What operators watch: structured logs with run and contract ids, metrics for Prometheus, traces as an extra. Never row data."""
