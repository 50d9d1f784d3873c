"""Context that travels with calls and events, over hops from nameko to ours to nameko and on."""

from __future__ import annotations

from typing import Any

from tests.interop.fixtures import UUID, InteropCase
from tests.interop.nameko_env import NAMEKO_3

BIG = {"big": 2**40, "negative": -(2**40)}
CONTEXT = {"language": "en", "user_id": 7, "nested": {"a": [1, True, 0.5]}, **BIG}
FOREIGN = {"foreign": "kept"}  # a header of that name, not ours: it is context too
ARRIVED = {**CONTEXT, **FOREIGN}
ROUTES = (("n", "t", "n"), ("t", "n", "t"), ("n", "n", "t", "t"), ("t", "t", "n", "n"))
TRACKED = 3  # ``parent_calls_tracked`` of both sides


class Context(InteropCase):
    """A route is walked from service to service, and each says what it sees."""

    async def setUp(self) -> None:
        super().setUp()
        await self.start_ours("Hops")

    def names(self, stack: list[str]) -> list[str]:
        """A stack without what is drawn anew each time."""
        return [UUID.sub("", call_id).strip(".") for call_id in stack]

    async def walk(self, *route: str) -> list[dict[str, Any]]:
        cluster = await self.cluster(context_data=CONTEXT)
        hop = getattr(cluster, f"hops_{route[0]}").hop.options(headers=FOREIGN)
        seen: list[dict[str, Any]] = await hop(*route[1:])
        return seen

    async def test_context_data(self) -> None:
        """All of it is there at each hop, whoever passed it on, other people's headers under their own names."""
        for route in ROUTES:
            for seen in await self.walk(*route):
                self.assertEqual(seen["data"], ARRIVED, route)
                self.assertEqual(seen["providers"], ["en", 7])

    async def test_call_id_stacks(self) -> None:
        """Each hop adds its call to the stack of the one before it, and the oldest drop out at the same length."""
        for route in ROUTES:
            walked = await self.walk(*route)
            names = ["standalone_rpc_proxy.call", *(f"hops_{side}.hop" for side in route)]
            before: list[str] = []
            for hop, seen in enumerate(walked, 2):
                stack = seen["stack"]
                self.assertEqual(self.names(stack), names[max(0, hop - TRACKED - 1) : hop], route)
                self.assertEqual([stack[-1], stack[-2]], [seen["call_id"], seen["parent"]])
                if before:
                    self.assertEqual([before[0], before[-TRACKED:]], [seen["origin"], stack[:-1]])
                before = stack

    async def test_stacks_through_events(self) -> None:
        """An event carries context and stack to its handlers, of the other side and of its own."""
        heard = await self.witness()
        await self.start_ours("Listener")
        for route in (("n", "t"), ("t", "n")):
            heard.things.clear()
            last = (await self.walk(*route))[-1]
            told = await heard.wait(2)
            self.assertEqual({who for who, *_ in told}, {"listener_n", "listener_t"})
            for who, what, data, stack in told:
                self.assertEqual((what, data), ("arrived", ARRIVED))
                self.assertEqual(stack[:-1], last["stack"][-TRACKED:])
                self.assertEqual(self.names(stack)[-1], f"{who}.arrived")

    async def test_one_id_for_all_calls_of_a_program(self) -> None:
        """Our standalone proxy has one call id for all its calls, as nameko's has."""
        cluster = await self.cluster()
        stacks = [(await cluster.hops_n.hop())[0]["stack"] for _ in range(2)]
        self.assertEqual(stacks[0][0], stacks[1][0])

    async def test_programs_of_namekos(self) -> None:
        """Context and call id of nameko's standalone proxies arrive in our services; None is nothing."""
        cluster = await self.cluster()
        for answer in await cluster.standalone_n.call("hops_t", "hop", [], {**ARRIVED, "none": None}):
            (seen,) = answer["result"]
            self.assertEqual(seen["data"], ARRIVED)
            self.assertEqual(len(seen["stack"]), 2)
            self.assertTrue(seen["origin"].startswith("standalone_rpc_"), seen)
            self.assertEqual(seen["origin"], seen["parent"])


class ContextWithNameko3(Context):
    """The same with 3.0.0rc11."""

    version = NAMEKO_3
