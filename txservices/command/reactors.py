"""`--reactor NAME`: which of Twisted's reactors runs the services. twistd has the same option, for the same names.

asyncio's is for services whose methods await what asyncio waits for: see ``utils.tasks``.
"""

from __future__ import annotations

from twisted.application.reactors import getReactorTypes

from txservices.exceptions import CommandError


def install(name: str) -> None:
    """Install the reactor of that name. ``CommandError`` if there is no such reactor, or it can't run here.

    To be called before anything imports ``twisted.internet.reactor``, as modules of services may.
    """
    reactors = {each.shortName: each for each in getReactorTypes()}
    if name not in reactors:
        raise CommandError(f"--reactor {name}: there is no such reactor: write one of {', '.join(sorted(reactors))}")
    try:
        reactors[name].install()
    except Exception as error:  # each may have needs of its own: a library, or another system
        raise CommandError(f"--reactor {name} can't run here: {type(error).__name__}: {error}") from error
