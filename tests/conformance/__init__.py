"""Everything that nameko's services may rely on, line by line: ``test_line_NN_…`` is line NN of the list made from it.

Each goes through what a service's author writes, and looks at the wire or at the broker's books. Where we differ from
nameko on purpose, the docstring says so. ``test_not_covered`` and ``test_poison`` are what nameko's own tests
leave out.
"""
