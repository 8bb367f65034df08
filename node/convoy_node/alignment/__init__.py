"""How rows of two holders find each other: link ids come with the consents; lists of before are matched once (``bootstrap``)."""
