"""The asset catalogue and the partners' tiers: signed entries, versions, and what each change needs."""
