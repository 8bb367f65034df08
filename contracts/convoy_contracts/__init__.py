"""What partners agreed, and whether a request is allowed: pure contract documents, signatures and decisions."""
