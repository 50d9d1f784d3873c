"""The lines to type next, made from the entrypoints of services; test_cli.py types them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from txservices.command import announce
from txservices.containers import ServiceContainer
from txservices.events import event_handler
from txservices.rpc import rpc
from txservices.timer import timer
from txservices.web.handlers import HttpRequestHandler, http


class OwnHandler(HttpRequestHandler):
    """A subclass, as users make them."""


class Shop:
    """One of each."""

    name = "shop"

    @rpc
    def plain(self) -> None: ...

    @rpc
    def typed(self, number: int, texts: list, anything: Any, price: float, note: str = "") -> None: ...  # type: ignore[type-arg]  # as users write

    @rpc
    def named(self, item: int, *, colour: str) -> None: ...

    @rpc
    def many(self, *items: int, **options: int) -> None: ...

    @event_handler("stock", "sold.*")
    def sold(self, payload: Any) -> None: ...

    @http("GET", "/")
    def root(self, request: Any) -> None: ...

    @http("POST,PUT", "/items/<int:item>/<colour>")
    def item(self, request: Any, item: int, colour: str) -> None: ...

    @OwnHandler.decorator("DELETE", "/files/<path:file>")
    def file(self, request: Any, file: str) -> None: ...

    @timer(interval=1)
    def tick(self) -> None: ...


LINES = [
    "txservices call --config 'my file' shop.plain",
    """txservices call --config 'my file' shop.typed '[42, [], "anything", 1.5]'""",
    """txservices call --config 'my file' shop.named '{"item": 42, "colour": "colour"}'""",
    "txservices call --config 'my file' shop.many",
    """txservices dispatch --config 'my file' stock sold.any '"payload"'""",
    "curl -i http://127.0.0.1:8000/",
    "curl -i -d 'post body' http://127.0.0.1:8000/items/42/colour",
    "curl -i -X DELETE http://127.0.0.1:8000/files/a/b",
]


class Lines(SynchronousTestCase):
    """The lines for some containers."""

    def setUp(self) -> None:
        self.containers = [ServiceContainer(Shop, {})]

    def test_lines(self) -> None:
        """Arguments come from the signature, variables of a URL from its converters, and a timer has no line."""
        reach = announce.Reach(options=" --config 'my file'", http="http://127.0.0.1:8000")
        self.assertCountEqual(announce.lines_to_type(self.containers, reach), LINES)

    def test_command(self) -> None:
        """The command is typed as it can be reached."""
        lines = announce.lines_to_type(self.containers, announce.Reach(command=".venv/bin/txservices"))
        self.assertIn(".venv/bin/txservices call shop.plain", lines)

    def test_many(self) -> None:
        """For a thousand methods some lines are shown, and the number of the others: an unread pipe is not filled."""
        methods = {f"method_{number}": rpc(lambda self: None) for number in range(1000)}
        crowd = type("Crowd", (), {"name": "crowd", **methods})
        *shown, last = announce.lines_to_type([ServiceContainer(crowd, {})], announce.Reach())
        self.assertEqual(len(shown), announce.LINES_MAX)
        self.assertTrue(all(line.startswith("txservices call crowd.method_") for line in shown), shown)
        self.assertEqual(last, "and 980 more")

    def test_uses(self) -> None:
        """Entrypoints are told by their classes' names, subclasses too."""
        self.assertTrue(announce.uses(self.containers, announce.HTTP))
        self.assertFalse(announce.uses([], announce.HTTP))
