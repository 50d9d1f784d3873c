"""Mirrors txservices/utils/; dotted names and secrets are in tests/test_utils.py."""
