"""`txservices shell`: a Python prompt from which services can be called.

    >>> n.rpc.service_x.remote_method("hellø")
    'hellø-x-y'
    >>> n.dispatch_event("service_a", "event_type", "payload")

Statements piped into it are run as if they were typed, up to the first error. The prompt runs in the main thread, and
the reactor in another one; a call waits for the reactor.
"""

from __future__ import annotations

import ast
import code
import os
import sys
import tokenize
import traceback
from collections.abc import Callable, Mapping
from importlib.util import find_spec
from types import TracebackType
from typing import Any

from txservices import __version__, configuration
from txservices.command import exits
from txservices.command.broker import for_client
from txservices.command.options import Given
from txservices.exceptions import CommandError
from txservices.proxies import ClusterProxy
from txservices.standalone.blocking import ClusterRpcProxy, event_dispatcher
from txservices.standalone.reactor_thread import in_reactor
from txservices.utils import default_reactor, sanitize_url

PIPED = "<stdin>"


class Cluster:
    """The object that the prompt has as `n`. It connects when it is first used, and again after ``disconnect``.

    Attributes:
        config: the configuration that it connects with.
    """

    def __init__(self, config: Mapping[str, Any]) -> None:
        self.config = config
        self._proxy = ClusterRpcProxy(config)
        self._dispatch = event_dispatcher(config)
        self._started: ClusterProxy | None = None

    @property
    def rpc(self) -> ClusterProxy:
        """All services: `n.rpc.service.method(…)` or `n.rpc["service"].method(…)` waits for the result."""
        if self._started is None:
            self._started = self._proxy.start()
        return self._started

    def dispatch_event(self, service_name: str, event_type: str, event_data: Any = None) -> None:
        """Dispatch an event in the name of that service. Returns when the broker has confirmed it."""
        self._dispatch(service_name, event_type, event_data)

    def disconnect(self) -> None:
        """Stop taking replies. The next use connects again."""
        if self._started is not None:
            self._started = None
            self._proxy.stop()


def interact(given: Given, interface: str | None) -> None:
    """Run a prompt until the user leaves it, or run what is piped in. ``SystemExit`` with 1 after an error in that."""
    config = in_reactor(for_client, given.config(), default_reactor())
    cluster = Cluster(config)
    namespace = {"__name__": "__console__", "__doc__": None, "n": cluster}
    try:
        run_startup(namespace)
        if sys.stdin.isatty():
            choose(interface)(namespace, banner(given, config))
        else:
            run_piped(sys.stdin.read(), namespace)
    finally:
        cluster.disconnect()


def banner(given: Given, config: Mapping[str, Any]) -> str:
    uris = config[configuration.AMQP_URI.name]
    broker = ", ".join(sanitize_url(uri or "") for uri in ([uris] if isinstance(uris, str) else uris))
    origin = " (from --config)" if given.path and not given.broker else ""
    return (
        f"txservices {__version__} shell, Python {sys.version.split()[0]} on {sys.platform}\n"
        f"Broker: {broker}{origin}\n"
        "n.rpc.service.method(…)  n.dispatch_event(service, type, data)  n.config  n.disconnect()"
    )


def run_startup(namespace: dict[str, Any]) -> None:
    """Run the file that PYTHONSTARTUP names. An error in it is printed and goes no further, as in Python itself."""
    path = os.environ.pop("PYTHONSTARTUP", None)  # else bpython and IPython would run it, too
    if not path or not os.path.isfile(path):
        return
    try:
        with tokenize.open(path) as file:
            exec(compile(file.read(), path, "exec", dont_inherit=True), namespace)
    except Exception as error:
        tell(error, path)


def run_piped(text: str, namespace: dict[str, Any]) -> None:
    """Run each statement. The value of an expression is printed, as at a prompt."""
    try:
        for statement in ast.parse(text, PIPED).body:
            typed = ast.Interactive([statement])
            exec(compile(typed, PIPED, "single", dont_inherit=True), namespace)
    except Exception as error:
        tell(error, PIPED)
        raise SystemExit(exits.CRASH) from None


def tell(error: Exception, path: str) -> None:
    """Print the traceback, from the first line in the file `path` on."""
    sys.stdout.flush()
    frames: TracebackType | None = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename != path:
        frames = frames.tb_next
    traceback.print_exception(type(error), error, frames)


# Prompts --------------------------------------------------------------------------------------------------------------


def bpython(namespace: dict[str, Any], banner: str) -> None:
    from bpython import embed

    embed(locals_=namespace, banner=banner)


def ipython(namespace: dict[str, Any], banner: str) -> None:
    from IPython import start_ipython

    start_ipython(argv=[f"--TerminalInteractiveShell.banner1={banner}\n"], user_ns=namespace)


def plain(namespace: dict[str, Any], banner: str) -> None:
    try:
        import readline
        import rlcompleter
    except ImportError:
        pass  # no such library on this system
    else:
        readline.set_completer(rlcompleter.Completer(namespace).complete)
        readline.parse_and_bind("tab: complete")
    code.interact(banner, local=namespace, exitmsg="")


# in order of preference: the module that has to be installed, and the function that runs the prompt
INTERFACES: dict[str, tuple[str, Callable[[dict[str, Any], str], None]]] = {
    "bpython": ("bpython", bpython),
    "ipython": ("IPython", ipython),
    "plain": ("code", plain),
}


def choose(interface: str | None) -> Callable[[dict[str, Any], str], None]:
    """The prompt of that name, or else the first one that is installed. ``CommandError`` if the named one is not."""
    for name in [interface] if interface else INTERFACES:
        module, prompt = INTERFACES[name]
        if find_spec(module):
            return prompt
    raise CommandError(f"--interface {interface} is not installed: pip install {interface}, or choose plain")
