import pytest
from nameko.rpc import rpc
from nameko.testing.services import entrypoint_hook


class Service:
    name = "service"

    @rpc(expected_exceptions=KeyError)
    def look(self, error):
        raise error


def test_unexpected(container_factory, rabbit_config, seen):
    container = container_factory(Service, rabbit_config)
    container.start()
    with entrypoint_hook(container, "look") as look:
        for error in (KeyError("expected"), ValueError("not so")):
            with pytest.raises(type(error)):
                look(error)
    container.stop()
    assert len(seen) == 1
