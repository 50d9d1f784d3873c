"""nameko's code as it is: its imports, its services that wait, its tests that wait, and its command line.

``imports`` is where it begins: after ``install()`` the modules of nameko and eventlet are those of this folder, or else
ours of the same name.
"""
