"""Ids: unique among all processes, and cheap."""

from __future__ import annotations

import os
import uuid

from twisted.trial.unittest import TestCase

from txservices.utils.ids import new_id


class Ids(TestCase):
    """``new_id``."""

    def test_shape(self) -> None:
        """An id looks like a UUID, and no two are the same."""
        ids = [new_id() for _ in range(1000)]
        self.assertEqual(len(set(ids)), 1000)
        self.assertEqual(str(uuid.UUID(ids[-1])), ids[-1])

    def test_fork(self) -> None:
        """A forked process makes ids of its own."""
        reader, writer = os.pipe()
        child = os.fork()
        if not child:
            os.write(writer, new_id().encode())
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as file:
            theirs = file.read()
        os.waitpid(child, 0)
        self.assertEqual(len(theirs), 36)
        self.assertNotEqual(theirs[:24], new_id()[:24])
