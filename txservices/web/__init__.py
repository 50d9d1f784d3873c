"""HTTP: ``server`` brings a request in and its response out, ``handlers`` calls the method between the two.

``websocket`` has methods for browsers at the same port, over ``sockets``.
"""
