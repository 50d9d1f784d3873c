"""Programs for type checkers: what mypy and pyright say of them is in tests/test_typing.py. Nothing runs them."""
