"""A trace through nameko's services: what ours send arrives in ours behind them, and is one trace."""

from __future__ import annotations

from tests.interop.fixtures import InteropCase
from tests.interop.nameko_env import NAMEKO_3
from tests.tracing import Recorded, context_of


class Traces(InteropCase):
    """nameko in the middle; it knows nothing of traces, and passes on what it does not know."""

    async def setUp(self) -> None:
        super().setUp()
        await self.start_ours("Hops")

    async def test_calls(self) -> None:
        """Ours -> nameko -> ours is one trace, and our second span is a child of our call of nameko."""
        for route in (("t", "n", "t"), ("n", "t"), ("t", "n", "n", "t")):
            recorded = Recorded(self)
            cluster = await self.cluster(context_data={"baggage": "user=ada"})
            with self.subTest(route=route):
                seen = await getattr(cluster, f"hops_{route[0]}").hop(*route[1:])
                self.assertEqual(len(recorded.traces_seen()), 1)
                calls = [each for each in recorded.spans if each.kind.name == "CLIENT"]
                last = [each for each in recorded.spans if each.kind.name == "SERVER"][-1]
                assert last.parent is not None
                self.assertEqual(last.parent.span_id, context_of(calls[-1]).span_id)
                trace_id = f"{context_of(last).trace_id:032x}"
                for each in seen:  # at nameko's, too
                    self.assertIn(trace_id, each["data"]["traceparent"])
                    self.assertEqual(each["data"]["baggage"], "user=ada")
            recorded.end()

    async def test_events(self) -> None:
        """An event is handled in the trace of the call that led to it, whoever has sent it, and by both sides."""
        heard = await self.witness()
        await self.start_ours("Listener")
        for route in (("n",), ("t", "n"), ("n", "t")):
            heard.things.clear()
            recorded = Recorded(self)
            cluster = await self.cluster()
            with self.subTest(route=route):
                await getattr(cluster, f"hops_{route[0]}").hop(*route[1:])
                # Events of earlier tests may have waited for our listener: their traces are others, or they have none.
                (called,) = [each for each in recorded.spans if each.parent is None and each.kind.name == "CLIENT"]
                trace_id = f"{context_of(called).trace_id:032x}"
                told: list[str] = []
                count = 0
                while len(told) < 2:
                    things = await heard.wait(count)
                    count = len(things) + 1
                    told = [who for who, _, data, _ in things if trace_id in data.get("traceparent", "")]
                self.assertEqual(set(told), {"listener_n", "listener_t"})
            recorded.end()


class TracesWithNameko3(Traces):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3
