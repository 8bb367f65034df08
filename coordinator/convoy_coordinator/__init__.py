"""The application in the middle: contracts, runs, releases and the log."""
