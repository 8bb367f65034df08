"""Evidence: everything an auditor needs to check the log offline, as one zip file."""
