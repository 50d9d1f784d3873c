"""Tests of txservices.once."""
