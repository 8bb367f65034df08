"""The console: what people see, rendered on the server."""
