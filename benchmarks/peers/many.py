"""As many services, with as many methods, as the environment says, to see how the cost grows."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from txservices.rpc import rpc


def method(name: str) -> Callable[[Any, str], str]:
    def echo(self: Any, text: str) -> str:
        return text

    echo.__name__ = name
    return rpc(echo)


def service(number: int, methods: int) -> type:
    names = [f"method_{each}" for each in range(methods)]
    body = {"name": f"many_{number}", "__module__": __name__, **{name: method(name) for name in names}}
    return type(f"Many{number}", (), body)


for number in range(int(os.environ.get("BENCHMARK_SERVICES", "1"))):
    made = service(number, int(os.environ.get("BENCHMARK_METHODS", "1")))
    globals()[made.__name__] = made
del made
