"""Runs that repeat: a standing order with a cron expression, carried out by the coordinator's own clock."""
