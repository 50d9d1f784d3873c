"""The examples of the guide, for the tests that run them."""

from __future__ import annotations

import os
import sys
from importlib import import_module
from types import ModuleType
from unittest.mock import patch

from tests.processes import EXAMPLES
from txservices.testing import TestCase

GUIDE = os.path.join(EXAMPLES, "guide")


def example(name: str) -> ModuleType:
    """A module of examples/guide."""
    with patch.object(sys, "path", [GUIDE, *sys.path]):
        return import_module(name)


class Case(TestCase):
    """An example of the guide. The limit of users' tests is too short for a process on a slow machine."""

    timeout = 120
