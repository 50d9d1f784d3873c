"""A service under pytest, with its fixtures. Run it with `pytest test_greeting.py`."""

from txservices.rpc import rpc
from txservices.testing.services import entrypoint_hook


class Greeting:
    name = "greeting"

    @rpc
    def hello(self, who):
        return f"Hello, {who}!"


async def test_hello(container_factory, rabbit_config):
    container = container_factory(Greeting, rabbit_config)
    await container.start()
    with entrypoint_hook(container, "hello") as hello:
        assert await hello("world") == "Hello, world!"


def test_hello_in_a_plain_test(container_factory, rabbit_config, txservices_run):
    container = container_factory(Greeting, rabbit_config)
    txservices_run(container.start)
    with entrypoint_hook(container, "hello") as hello:
        assert txservices_run(hello, "world") == "Hello, world!"
