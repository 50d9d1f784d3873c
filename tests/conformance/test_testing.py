"""Testing helpers and utilities: lines 70 to 72."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from twisted.trial.unittest import TestCase

from tests.conformance.cases import Case
from tests.services import Heard
from txservices.extensions import DependencyProvider
from txservices.rpc import rpc
from txservices.utils import get_redacted_args, import_from_path, sanitize_url

CARD = {"number": "4111", "owner": {"name": "n"}, "past": [{"id": 1}, {"id": 2}]}
HIDDEN = "********"

# sensitive_arguments, and what is shown of method(CARD, b="secret")
REDACTED: list[tuple[Any, dict[str, Any]]] = [
    ((), {"a": CARD, "b": "secret"}),
    ("b", {"a": CARD, "b": HIDDEN}),
    (("a", "b"), {"a": HIDDEN, "b": HIDDEN}),
    ("a.number", {"a": {**CARD, "number": HIDDEN}, "b": "secret"}),
    ("a.owner.name", {"a": {**CARD, "owner": {"name": HIDDEN}}, "b": "secret"}),
    ("a.past[0]", {"a": {**CARD, "past": [HIDDEN, {"id": 2}]}, "b": "secret"}),
    ("a.past[1].id", {"a": {**CARD, "past": [{"id": 1}, {"id": HIDDEN}]}, "b": "secret"}),
    (("a.nothing", "a.past[9]", "b.x", "c"), {"a": CARD, "b": "secret"}),
]


class Utilities(Case):
    """Line 71. ``utils.retry`` is not there: who waits here waits on Deferreds."""

    async def test_line_71_redaction(self) -> None:
        """What ``sensitive_arguments`` names is hidden, and the arguments themselves stay as they are."""
        for sensitive, shown in REDACTED:
            heard = Heard()

            class Redacting(DependencyProvider):
                def __init__(self, heard: Heard) -> None:
                    self.heard = heard

                def worker_setup(self, worker_ctx):
                    args = get_redacted_args(worker_ctx.entrypoint, *worker_ctx.args, **worker_ctx.kwargs)
                    self.heard((args, deepcopy(worker_ctx.args)))

            class Service:
                name = "service"
                redacting = Redacting(heard)

                @rpc(sensitive_arguments=sensitive)
                def method(self, a, b=None):
                    return [a, b]

            (container,) = await self.start(Service)
            value = await (await self.cluster()).service.method(CARD, b="secret")
            self.assertEqual(value, [CARD, "secret"], sensitive)
            self.assertEqual(heard.things, [(shown, [CARD])], sensitive)
            await container.stop()


class Names(TestCase):
    """Line 71."""

    def test_line_71_urls(self) -> None:
        """No password is left in an address."""
        for url, shown in (
            ("amqp://u:secret@h:5672/v", "amqp://u:********@h:5672/v"),
            ("amqp://u@h/", "amqp://u@h/"),
            ("http://h/path", "http://h/path"),
        ):
            self.assertEqual(sanitize_url(url), shown)

    def test_line_71_import_from_path(self) -> None:
        """None for None, ImportError for what isn't there."""
        self.assertIsNone(import_from_path(None))
        self.assertIs(import_from_path("txservices.rpc.rpc"), rpc)
        for path in ("txservices.rpc.nothing", "nowhere.at_all"):
            self.assertRaises(ImportError, import_from_path, path)
