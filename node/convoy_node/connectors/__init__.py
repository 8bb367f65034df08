"""Where a node's rows come from. One module per source; all return Arrow tables."""
