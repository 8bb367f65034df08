"""A generated population and a whole federation on one machine."""
