"""The application inside each partner: the root of trust."""
