"""The partner channel: gRPC with mutual TLS between the coordinator and every partner's node."""
