"""Clients for programs that are no service: ``rpc`` calls services, ``events`` dispatches in their name."""
