"""Mirrors txservices/wire/."""
