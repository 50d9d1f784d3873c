"""Tests of txservices.monitoring."""
