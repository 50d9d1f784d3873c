"""Services seen from outside. Nothing here knows how a service works; it is told by ``observers``, or asks containers.

The fleet is all processes that share a broker. A process tells the others what it is when it is asked, see ``answers``.
"""
