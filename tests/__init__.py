"""The suite: it mirrors txservices/ file by file. `make test`, or `python -m twisted.trial tests`."""
