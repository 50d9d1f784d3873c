"""Mirrors txservices/command/."""
