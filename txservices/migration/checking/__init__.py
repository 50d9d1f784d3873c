"""Reads code that was written for nameko, without importing it, and says what will change. Pure.

a file  ->  names  ->  values (what waits), rules (what differs), edits (what can be written)  ->  findings  ->  report
"""
