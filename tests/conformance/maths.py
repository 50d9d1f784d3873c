"""A service that the tests of calls and replies call."""

from __future__ import annotations

from txservices.exceptions import (
    UnknownService,
)
from txservices.rpc import RpcProxy, rpc


class Broken(Exception):
    """Has no text, not even for repr."""

    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class NotShown:
    """Has no repr."""

    def __repr__(self) -> str:
        raise ValueError("no repr")


class Maths:
    """The service that the tests call."""

    name = "maths"
    nobody = RpcProxy("nobody")

    @rpc
    def echo(self, *args, **kwargs):
        return [list(args), kwargs]

    @rpc
    def give(self, value):
        return value

    @rpc
    def fail(self, *args):
        raise ValueError(*args)

    @rpc
    def break_down(self):
        raise Broken("text", Broken())

    @rpc
    def not_shown(self):
        return NotShown()

    @rpc
    async def try_nobody(self):
        try:
            return await self.nobody.method()
        except UnknownService as error:
            return [str(error), list(error.args)]

    @rpc
    def no_arguments(self):
        return "ok"

    @rpc
    def positional(self, a, b):
        return "ok"

    @rpc
    def default(self, a, b=None):
        return "ok"

    @rpc
    def star(self, a, *args):
        return "ok"

    @rpc
    def double_star(self, a, **kwargs):
        return "ok"
