"""A program that is no service and has no reactor: nameko's standalone client, or our blocking one, as it stands.

    python -m tests.interop.program '{"framework": "nameko", "config": {"AMQP_URI": …}, "services": ["answers_n"]}'

It prints what it saw, as JSON. Its Python is that of ``nameko_env`` for nameko's.
"""

from __future__ import annotations

import json
import sys
import threading
from importlib import import_module

from tests.interop.fleet import deserialize_registered, outcome

told = json.loads(sys.argv[1])
framework, config, services = told["framework"], told["config"], told["services"]
if framework == "nameko":
    standalone, events = (import_module(f"nameko.standalone.{name}") for name in ("rpc", "events"))
else:
    standalone = events = import_module("txservices.standalone.blocking")
deserialize_registered(framework)
arguments = (config,)
if framework == "nameko" and hasattr(import_module("nameko"), "config"):  # 3.0 has one for all
    import_module("nameko").config.setup(config)
    arguments = ()


def calls(rpc, service):
    """The outcomes of all kinds of calls, as a caller sees them."""
    proxy = getattr(rpc, service)
    replies = [proxy.echo.call_async(number) for number in range(5)]
    return [
        outcome(lambda: proxy.echo(1, "ü", None, key=[1.5])),
        outcome(lambda: rpc[service].two(1, c=2)),
        outcome(lambda: proxy.two()),
        outcome(lambda: proxy.nothing()),
        [outcome(lambda kind=kind: proxy.fail(kind)) for kind in ("values", "registered", "several", "mute")],
        outcome(lambda: proxy.give("odd")),
        [reply.result() for reply in reversed(replies)],
        outcome(lambda: proxy.echo(object()))["error"],
        outcome(lambda: proxy.echo("goes on")),
    ]


def in_threads(service):
    """One proxy each, as nameko's has to be used."""
    got = {}

    def work(number):
        with standalone.ClusterRpcProxy(*arguments, timeout=20) as rpc:
            got[number] = getattr(rpc, service).echo(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return sorted(got.items())


seen = {}
for service in services:
    with standalone.ClusterRpcProxy(*arguments, context_data={"language": "en"}, timeout=20) as rpc:
        seen[service] = calls(rpc, service)
        seen["nobody"] = outcome(lambda: rpc.nobody.method())
    with standalone.ServiceRpcProxy(service, *arguments, timeout=20) as proxy:
        seen[service].append(outcome(lambda: proxy.echo("of one service")))
    seen[service].append(in_threads(service))
dispatch = events.event_dispatcher(*arguments)
for side in "nt":
    dispatch(f"teller_{side}", "a.wild", framework)
print(json.dumps(seen), flush=True)
