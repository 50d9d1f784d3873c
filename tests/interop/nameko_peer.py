"""The process of nameko's that these tests talk to; its Python is that of ``nameko_env``.

    python -m tests.interop.nameko_peer '{"config": {"AMQP_URI": …}, "services": ["Answers", …]}'

It prints ``ready`` once all services consume.
"""

from __future__ import annotations

import eventlet

eventlet.monkey_patch()

import json  # noqa: E402
import logging  # noqa: E402
import signal  # noqa: E402
import sys  # noqa: E402

import nameko  # noqa: E402
from nameko.rpc import rpc  # noqa: E402
from nameko.runners import ServiceRunner  # noqa: E402
from nameko.standalone.events import event_dispatcher  # noqa: E402
from nameko.standalone.rpc import ClusterRpcProxy, ServiceRpcProxy  # noqa: E402

from tests.interop.fleet import outcome, services  # noqa: E402

told = json.loads(sys.argv[1])
config = told["config"]
arguments = (config,)  # that 2.14.1 wants, and 3.0 has for all
if hasattr(nameko, "config"):
    nameko.config.setup(config)
    arguments = ()


class Standalone:
    """Programs that are no services, in a service so that they can be told what to do."""

    name = "standalone_n"

    @rpc
    def call(self, service, method, args, context_data):
        """Two calls through one proxy of all services, one through a proxy of that one."""
        with ClusterRpcProxy(*arguments, context_data=context_data, timeout=10) as cluster:
            first = outcome(lambda: getattr(cluster[service], method)(*args))
            second = outcome(lambda: getattr(cluster[service], method).call_async(*args).result())
        with ServiceRpcProxy(service, *arguments, context_data=context_data, timeout=10) as proxy:
            return [first, second, outcome(lambda: getattr(proxy, method)(*args))]

    @rpc
    def dispatch(self, service, event_type, data):
        event_dispatcher(*arguments)(service, event_type, data)


def main() -> None:
    logging.basicConfig(level=logging.INFO)
    sys.stdout.reconfigure(line_buffering=True)  # for what is booked
    found = {**services("nameko", "n", lambda: eventlet.event.Event().wait()), "Standalone": Standalone}
    runner = ServiceRunner(*arguments)
    for name in told["services"]:
        runner.add_service(found[name])
    signal.signal(signal.SIGTERM, lambda *_: eventlet.spawn_n(runner.stop))
    runner.start()
    print("ready", flush=True)
    runner.wait()


if __name__ == "__main__":
    main()
