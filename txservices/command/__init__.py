"""The command line and the process: what `txservices` and `twistd txservices` do before, around and after services.

``cli`` and ``tap`` are the two faces; both build the same tree. ``options`` are what is typed, ``settings`` the YAML
file, ``loading`` finds service classes, ``broker`` finds or starts the broker (``probe`` asks who is on a port),
``announce`` says what a start offers, ``logs`` where the log goes, ``exits`` how the process ends. ``reloading`` is
`run --reload`, ``manhole`` a Python prompt inside the process, ``shell`` one outside.
"""
