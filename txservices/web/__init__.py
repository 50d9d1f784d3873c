"""HTTP and WebSockets.

``handlers`` has the entrypoint ``http``, ``server`` the address and its URLs, ``site`` the connections, ``messages``
requests and responses, and ``bodies`` sends a long body. ``websocket`` has methods that browsers call over a WebSocket,
and ``sockets`` its frames.
"""
