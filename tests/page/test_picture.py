"""The picture of a fleet, put together of answers."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.page.fleets import BEGUN, answer, called, counts, edge, failure, method, service, three_hundred
from txservices.page import picture
from txservices.page.picture import Picture

NOW = BEGUN + 60


class PictureCase(SynchronousTestCase):
    """A picture, at a time that stands."""

    def setUp(self) -> None:
        self.picture = Picture()

    def state(self, *answers: Any, now: float = NOW) -> dict[str, Any]:
        self.picture.add(answers, now)
        state: dict[str, Any] = json.loads(json.dumps(self.picture.state(), allow_nan=False))
        return state

    def edges(self, state: dict[str, Any]) -> list[tuple[Any, ...]]:
        return [(each["from"], each["to"], each["kind"], each["rate"]) for each in state["edges"]]


class Services(PictureCase):
    """Services and their instances."""

    def test_nobody(self) -> None:
        """Without an answer there is nothing, and that is no error."""
        state = self.state()
        self.assertEqual((state["services"], state["edges"], state["failures"]), ([], [], []))

    def test_two_instances(self) -> None:
        """Rates and errors add up, the median is weighed, the slowest instance's p99 counts."""
        shop = service("shop", method("sell"), method("find"))
        first = answer(1, shop, methods=[called("shop", "sell", rate=30.0, p50=0.01, p99=0.1)])
        second = answer(2, shop, methods=[called("shop", "sell", rate=10.0, error_rate=2.0, p50=0.05, p99=0.4)])
        [shown] = self.state(first, second)["services"]
        self.assertEqual((shown["name"], shown["up"], shown["gone"], shown["versions"]), ("shop", 2, 0, ["1.0"]))
        self.assertEqual((shown["rate"], shown["error_rate"], shown["p99"]), (40.0, 2.0, 0.4))
        self.assertAlmostEqual(shown["p50"], 0.02)
        self.assertEqual((shown["running"], shown["waiting"], shown["max_workers"]), (2, 4, 20))
        sell, find = shown["methods"]
        self.assertEqual((sell["method"], sell["doc"], sell["rate"]), ("sell", "Does sell.", 40.0))
        self.assertEqual((find["rate"], find["p50"], find["p99"]), (0.0, None, None))
        # the one that fails is listed first
        self.assertEqual([each["pid"] for each in shown["instances"]], [2, 1])

    def test_workers_of_methods(self) -> None:
        """Workers that run and wait are added up over all processes that answer; older processes do not tell theirs."""
        hold = method("hold") | {"running": 2, "waiting": 3, "max_workers": 2}
        first, second = (answer(pid, service("shop", hold, method("find"))) for pid in (1, 2))
        old = answer(3, service("shop", method("hold")))
        for answers, numbers in (((first, second, old), [4, 6, 4]), ((first,), [4, 6, 4]), ((first,), [2, 3, 2])):
            [shown] = self.state(*answers)["services"]
            found = {each["method"]: [each[key] for key in picture.WORKERS] for each in shown["methods"]}
            self.assertEqual(found["hold"], numbers)
            self.assertEqual(found.get("find", [0, 0, 0]), [0, 0, 0])

    def test_silent(self) -> None:
        """A process that misses a round is late, then gone; it counts no more, and is forgotten after a while."""
        shop = service("shop", method("sell"))
        first = answer(1, shop, methods=[called("shop", "sell", rate=3.0, p50=0.01, p99=0.1)])
        second = answer(2, shop, methods=[called("shop", "sell", rate=5.0, p50=0.01, p99=0.1)])
        self.state(first, second)
        for late, up, gone, status, rate in ((1, 2, 0, "late", 8.0), (2, 1, 1, "gone", 3.0), (9, 1, 1, "gone", 3.0)):
            [shown] = self.state(first, now=NOW + late)["services"]
            self.assertEqual((shown["up"], shown["gone"], shown["rate"]), (up, gone, rate))
            self.assertEqual((shown["instances"][0]["status"], shown["instances"][0]["seen"]), (status, NOW))
        [shown] = self.state(first, second, now=NOW + 10)["services"]
        self.assertEqual((shown["up"], shown["gone"]), (2, 0))
        [shown] = self.state(first, now=NOW + 11 + picture.GONE_KEPT)["services"]
        self.assertEqual((shown["up"], shown["gone"]), (1, 0))

    def test_not_ready(self) -> None:
        """An instance that is not ready is listed first, with its reasons; one that doesn't say so is ready."""
        away = {**service("shop", method("sell")), "not_ready": "shop: the database is away"}
        [shown] = self.state(answer(1, service("shop")), answer(2, away))["services"]
        told = [(each["pid"], each["not_ready"]) for each in shown["instances"]]
        self.assertEqual(told, [(2, "shop: the database is away"), (1, "")])

    def test_not_all_were_asked(self) -> None:
        """A process that was not asked is not late."""
        self.state(answer(1, service("shop")))
        self.picture.add([answer(2, service("web"))], NOW, whole=False)
        self.assertEqual(self.picture.state()["processes"], {"up": 2, "late": 0, "gone": 0})

    def test_other_clock(self) -> None:
        """Times of a machine whose clock is an hour ahead are shown by ours."""
        [shown] = self.state(answer(1, service("shop"), now=NOW + 3600))["services"]
        self.assertEqual(shown["instances"][0]["since"], BEGUN - 3600)

    def test_kinds_come_apart(self) -> None:
        """Services that were told in an earlier round stay, where this one told only numbers."""
        whole = answer(1, service("shop", method("sell")))
        self.state(whole)
        self.assertFalse(self.picture.services_unknown())
        numbers: Any = {key: value for key, value in whole.items() if key != "services"}
        numbers["methods"] = [called("shop", "sell", rate=1.0, p50=0.1, p99=0.1)]
        [shown] = self.state(numbers)["services"]
        self.assertEqual((shown["doc"], shown["methods"][0]["rate"]), ("The service shop.", 1.0))
        numbers["process"] = {**numbers["process"], "id": "another"}
        self.state(whole, numbers)
        self.assertTrue(self.picture.services_unknown())

    def test_many(self) -> None:
        """Of many instances those in trouble are listed, and how many more there are is said."""
        shop = service("shop", method("sell"))
        many = [answer(pid, shop) for pid in range(300)]
        many[250] = answer(250, shop, methods=[called("shop", "sell", rate=1.0, error_rate=1.0, p50=0.1, p99=0.1)])
        [shown] = self.state(*many)["services"]
        self.assertEqual((shown["up"], len(shown["instances"])), (300, picture.INSTANCES_SHOWN))
        self.assertEqual(shown["more_instances"], 300 - picture.INSTANCES_SHOWN)
        self.assertEqual(shown["instances"][0]["pid"], 250)

    def test_large(self) -> None:
        """Of three hundred processes that call each other the state is no longer than a page takes in a second."""
        state = self.state(*three_hundred())
        self.assertEqual(len(state["services"]), 30)
        self.assertEqual(len(state["edges"]), picture.EDGES_SHOWN)
        self.assertEqual(state["more_edges"], 30 * 29 - picture.EDGES_SHOWN)
        self.assertLess(len(json.dumps(state)), 500_000)

    def test_bound(self) -> None:
        """Only so many processes are remembered, those that answered last."""
        self.patch(picture, "PROCESSES_MAX", 3)
        for pid in range(5):
            self.state(answer(pid, service("shop")), now=NOW + pid)
        self.assertEqual([seen.process["pid"] for seen in self.picture.seen.values()], [2, 3, 4])


class Edges(PictureCase):
    """Who calls whom."""

    def test_calls(self) -> None:
        """All methods and instances of a service make one edge; a proxy that is not used makes one without calls."""
        web = service("web", targets=["shop", "mail"])
        first = answer(1, web, edges=[edge("web", "shop", "sell", rate=2.0), edge("web", "shop", "find", rate=1.0)])
        second = answer(2, web, edges=[edge("web", "shop", "sell", rate=4.0, p50=0.1, p99=0.2)])
        state = self.state(first, second)
        self.assertEqual(self.edges(state), [("web", "shop", "rpc", 7.0), ("web", "mail", "rpc", 0.0)])
        self.assertEqual((state["edges"][0]["methods"], state["edges"][0]["p99"]), (["find", "sell"], 0.2))

    def test_events(self) -> None:
        """Whoever hears an event has an edge from the service that tells it, with the numbers of its handler."""
        mail = service("mail", method("on_sold", "EventHandler", "shop.sold"))
        heard = called("mail", "on_sold", "EventHandler", rate=3.0, error_rate=1.0, p50=0.1, p99=0.3)
        state = self.state(answer(1, mail, methods=[heard]))
        self.assertEqual(self.edges(state), [("shop", "mail", "event", 3.0)])
        self.assertEqual(state["edges"][0]["error_rate"], 1.0)

    def test_gone(self) -> None:
        """The edges of what is gone stay, without numbers."""
        first = answer(1, service("web", targets=["shop"]), edges=[edge("web", "shop", "sell", rate=2.0)])
        heard = [called("mail", "on_sold", "EventHandler", rate=3.0)]
        mail = answer(2, service("mail", method("on_sold", "EventHandler", "shop.sold")), methods=heard)
        self.state(first, mail)
        self.state()
        edges = sorted(self.edges(self.state()))
        self.assertEqual(edges, [("shop", "mail", "event", 0), ("web", "shop", "rpc", 0)])


class Failures(PictureCase):
    """What failed, and the calls around it."""

    A, B, C = "web.order.1", "shop.sell.2", "bank.pay.3"

    def failed(self, *failures: Any, pid: int = 1, name: str = "web") -> dict[str, Any]:
        return self.state(answer(pid, service(name), failed=len(failures), failures=list(failures)))

    def chain(self) -> dict[str, Any]:
        """A call that failed, and with it the two above it, in three processes."""
        return self.state(
            answer(1, service("web"), failures=[failure(1, self.A, error="RemoteError")]),
            answer(2, service("shop"), failures=[failure(1, self.A, self.B, error="RemoteError")]),
            answer(3, service("bank"), failures=[failure(1, self.A, self.B, self.C, text="broke")]),
        )

    def test_cause(self) -> None:
        """A failure that made the calls above it fail is told once, with their names."""
        [shown] = self.chain()["failures"]
        self.assertEqual((shown["id"], shown["error"], shown["text"]), (self.C, "ValueError", "broke"))
        above = [{"service": "shop", "method": "sell"}, {"service": "web", "method": "order"}]
        self.assertEqual(shown["above"], above)

    def test_tree(self) -> None:
        """The tree goes from the first call to the failed one, and shows which of the others failed."""
        self.chain()
        found: Any = self.picture.failure(self.B)
        self.assertEqual((found["stack"], found["text"], found["arguments"]), ([self.A, self.B], "no", {"value": "1"}))
        tree = found["tree"]
        self.assertEqual((tree["id"], tree["service"], tree["method"]), (self.A, "web", "order"))
        [below] = tree["calls"]
        self.assertEqual((below["id"], below["meant"], below["failure"]["error"]), (self.B, True, "RemoteError"))
        self.assertEqual([each["id"] for each in below["calls"]], [self.C])

    def test_tree_of_unknown(self) -> None:
        """Calls above of which nothing else is known are shown by their ids, also those of programs."""
        self.failed(failure(1, "standalone_rpc_proxy.call.0", self.A, self.B))
        self.failed(failure(1, "standalone_rpc_proxy.call.0", "web.other.9"), pid=2)
        found: Any = self.picture.failure(self.B)
        tree = found["tree"]
        self.assertEqual((tree["service"], tree["failure"]), ("standalone_rpc_proxy", None))
        self.assertEqual([each["id"] for each in tree["calls"]], [self.A, "web.other.9"])

    def test_tree_is_cut(self) -> None:
        """Of many calls around a failure some are shown, and its own way always; a circle has an end."""
        self.patch(picture, "TREE_SHOWN", 5)
        others = [failure(number, "x.loop.0", f"x.call.{number}") for number in range(2, 50)]
        self.failed(*others, failure(1, "x.loop.0", "x.deep.1", self.C))
        found: Any = self.picture.failure(self.C)
        self.assertEqual(len(found["tree"]["calls"]), 3)
        self.assertEqual(found["more_calls"], 1 + 48 + 2 - 5)
        self.assertEqual(found["tree"]["calls"][0]["calls"][0]["id"], self.C)
        self.failed(failure(60, "a.a.1", "b.b.1"), failure(61, "b.b.1", "a.a.1"), pid=7)
        self.assertIsNotNone(self.picture.failure("a.a.1"))

    def test_kept(self) -> None:
        """Failures of several answers are put together, newest first; those of what is gone stay for a while."""
        self.failed(failure(1, self.A, at=NOW - 9), failure(2, self.B, at=NOW - 5))
        state = self.failed(failure(2, self.B, at=NOW - 5), failure(3, self.C, at=NOW - 1))
        self.assertEqual([each["id"] for each in state["failures"]], [self.C, self.B, self.A])
        for _ in range(3):
            state = self.state(now=NOW + 5)
        self.assertEqual(len(state["failures"]), 3)
        self.assertEqual(self.state(now=NOW + 1 + picture.GONE_KEPT)["failures"], [])
        self.assertIsNone(self.picture.failure(self.A))

    def test_new_ones_are_asked_for(self) -> None:
        """A process is asked for its failures when it has had more than are known."""
        self.state(answer(1, service("web"), failed=2), answer(2, service("shop")))
        self.assertEqual(self.picture.with_new_failures(), ["process-1"])
        self.picture.add([answer(1, service("web"), failed=2, failures=[failure(2, self.A)])], NOW, whole=False)
        self.assertEqual(self.picture.with_new_failures(), [])

    def test_long_and_many(self) -> None:
        """A long error is cut in the list, with a mark, and many failures are."""
        long = failure(1, "web.order.0", text="x" * 100_000)
        state = self.failed(long, *(failure(number, f"web.order.{number}", at=NOW - number) for number in range(2, 90)))
        self.assertLess(len(json.dumps(state)), 100_000)
        self.patch(picture, "FAILURES_SHOWN", 10)
        state = self.state(answer(1, service("web"), failed=90))
        self.assertEqual((len(state["failures"]), state["more_failures"]), (10, 79))
        whole: Any = self.picture.failure("web.order.0")
        self.assertEqual(len(whole["text"]), 100_000)

    def test_scripts(self) -> None:
        """Nothing is done to what looks like HTML: the page shows it as text."""
        script = "<script>alert(1)</script>"
        state = self.state(answer(1, service(script), failures=[failure(1, f"{script}.{script}.1", text=script)]))
        self.assertEqual((state["services"][0]["name"], state["failures"][0]["text"]), (script, script))

    def test_counts_of_nothing(self) -> None:
        """What was never called has no times."""
        self.assertEqual(picture.together([]), {**counts()})
