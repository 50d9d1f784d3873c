"""Clients for programs that are no service: ``rpc`` calls services, ``events`` dispatches in their name.

``blocking`` has both for programs without a reactor.
"""
