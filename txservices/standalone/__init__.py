"""Clients for programs that are no service: ``rpc`` calls services, ``events`` dispatches in their name.

``blocking`` has both for programs without a reactor. ``reactor_thread`` runs a reactor for it.
"""
