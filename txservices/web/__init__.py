"""HTTP and WebSockets.

``handlers`` has the entrypoint ``http``. ``listener`` has the address and its URLs, ``router`` finds the handler of a
URL, and ``server`` is how a service uses both. ``site`` has the connections, ``received`` the requests as they come,
``messages`` requests and responses as a method sees them, and ``bodies`` sends a long body. ``finishing`` does to a
response what browsers and caches ask for. ``static`` has files, and ``mounts`` applications of other frameworks.
``websocket`` has methods that browsers call over a WebSocket, and ``sockets`` its frames.
"""
