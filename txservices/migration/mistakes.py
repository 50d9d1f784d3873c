"""Why code that was written for nameko can't be imported here, each in one line that says what to do."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping

from txservices.migration.checking import python2

NO_NAMEKO = (
    "{name} is not installed: `txservices run --nameko`, twistd's --nameko and `NAMEKO: true` have its names lead to"
    " txservices"
)
CANT_IMPORT = re.compile(r"cannot import name '(\w+)' from '([\w.]+)'")
OURS = "txservices."
GREEN = f"{OURS}migration.green"

# What eventlet has and we have not, and what to use in its place
NOT_HERE = {
    "serve": "use a thread of `threading` for each connection, or @http",
    "wrap_ssl": "use ssl.SSLContext.wrap_socket",
    "backdoor": "run with --backdoor-port",
    "wsgi": "use @http, or a server of its own for the WSGI application",
    "websocket": "use txservices.web.websocket",
    "corolocal": "use threading.local",
    "db_pool": "use the pool of your database's library",
    "pools": "use a queue.Queue of what is pooled",
    "greenio": "use the socket module",
    "debug": "leave it out",
    "coros": "use eventlet.event",
    "spawn_after_local": "use eventlet.spawn_after",
    "hubs": "leave it out: threads wait without a hub",
    "get_hub": "leave it out: threads wait without a hub",
    "trampoline": "use select.select, or a timeout of the socket's own",
}

# What libraries replace that patch the process
PATCHED = (
    ("queue", "Queue"),
    ("select", "epoll"),
    ("select", "select"),
    ("socket", "socket"),
    ("subprocess", "Popen"),
    ("threading", "Lock"),
    ("threading", "Thread"),
    ("threading", "local"),
    ("time", "sleep"),
)


def missing(name: str) -> str:
    """What to write where a module of nameko's, eventlet's or gevent's is not here."""
    if name.startswith("gevent"):
        return "gevent patches the process in its own way: take it out; threads wait well without it"
    if name.startswith("eventlet"):
        return missing_of_eventlet(name.partition(".")[2])
    return f"{name} has no counterpart in txservices: see docs/migrating.md for what to use in its place"


def missing_of_eventlet(name: str) -> str:
    """What to write in place of a module or an attribute of eventlet's that is not here."""
    instead = NOT_HERE.get(name, "use threads (`threading`, `queue`)")
    return f"eventlet.{name} has no counterpart with --nameko: {instead}"


def why(error: BaseException) -> str | None:
    """What is wrong with a module that raised this while it was imported; None if that is nothing of this kind."""
    if isinstance(error, SyntaxError):
        return python2.WHAT_TO_DO if python2.can_be_python_2(source_of(error), error) else None
    if python2.needs_python_2(error):
        return f"{python2.WHAT_TO_DO} ({error})"
    if isinstance(error, ImportError):
        return why_no_import(error)
    if isinstance(error, AttributeError) and error.name is not None:
        text = missing_of_eventlet(error.name)
        if str(error).endswith(text):
            return text
        thing = error.obj if hasattr(error.obj, "__name__") else type(error.obj)
        module = getattr(thing, "__module__", None) or thing.__name__
        if nameko_is_ours() and module.startswith(GREEN):
            return missing_of_eventlet(f"{thing.__name__}.{error.name}")
        if nameko_is_ours() and module.startswith(OURS):
            return not_in(thing.__name__, error.name)
    return None


def why_no_import(error: ImportError) -> str | None:
    package = (error.name or "").partition(".")[0]
    if isinstance(error, ModuleNotFoundError):
        if package not in ("nameko", "eventlet", "gevent"):
            return None
        text = missing(error.name or "")
        return text if package == "gevent" or str(error) == text else NO_NAMEKO.format(name=error.name)
    found = CANT_IMPORT.match(str(error))
    if found is None or not nameko_is_ours():
        return None
    name, module = found.groups()
    if module.startswith(("eventlet", GREEN)):
        return missing_of_eventlet(name)
    return not_in(module, name) if module.startswith(("nameko", OURS)) else None


def not_in(thing: str, name: str) -> str:
    thing = re.sub(r"^txservices\.(migration\.)?", "nameko.", thing)
    return (
        f"{thing} has no {name} here: it is private to nameko, or of another version, so what patches or wraps it can't"
        " run. See docs/migrating.md"
    )


def nameko_is_ours() -> bool:
    """Whether something of nameko's or eventlet's has been imported, and is ours."""
    return any(hasattr(sys.modules.get(package), "__facade_of__") for package in ("nameko", "eventlet"))


def source_of(error: SyntaxError) -> str:
    """The text of the file that can't be read; what there is of it."""
    try:
        with open(error.filename or "", encoding="utf-8", errors="replace") as file:
            return file.read()
    except OSError:
        return error.text or ""


def as_it_is() -> dict[str, object]:
    """What libraries replace that patch the process, to compare with ``replaced``."""
    return {f"{module}.{name}": getattr(sys.modules.get(module), name, None) for module, name in PATCHED}


def replaced(before: Mapping[str, object]) -> dict[str, str]:
    """What has been replaced since then, each with the package that what is there now comes from."""
    return {
        name: (getattr(value, "__module__", None) or "?").partition(".")[0]
        for name, value in as_it_is().items()
        if value is not before[name] and before[name] is not None
    }
