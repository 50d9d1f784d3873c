"""Tests of txservices.serialization."""
