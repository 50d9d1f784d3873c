"""Mirrors txservices/utils/; ids, deadlines and names are in tests/test_utils.py."""
