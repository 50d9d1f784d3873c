"""HTTP and WebSockets.

``handlers`` has the entrypoint ``http``, ``server`` the address and its URLs, ``site`` the connections, ``messages``
requests and responses, and ``bodies`` sends a long body. ``finishing`` does to a response what browsers and caches ask
for. ``static`` has files, and ``mounts`` applications of other frameworks. ``websocket`` has methods that browsers call
over a WebSocket, and ``sockets`` its frames.
"""
