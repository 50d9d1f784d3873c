"""Tests of txservices.retry."""
