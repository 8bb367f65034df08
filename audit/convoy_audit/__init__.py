"""What happened, provably: RFC 6962 log, C2SP formats, offline verifier."""
