"""Joining and leaving: invitations, requests, approvals, certificates, revocation, rotation."""
