"""Refusals of the broker: in words with a cure, and whether it may grant the same later.

A start that can't succeed fails with ``DeclarationMismatch``. ``RefusedForNow`` is worth waiting for: a passive queue
that somebody else will declare, a limit of the virtual host. Once a service has started, it waits whatever is refused:
it has worked before, and may work again.
"""

from __future__ import annotations

from attrs import frozen

from txservices.exceptions import (
    AmqpError,
    CantBeDeclared,
    ChannelClosedByBroker,
    DeclarationMismatch,
    RefusedForNow,
)
from txservices.wire.spec import ReplyCode

PAUSE_FIRST = 0.5  # seconds before something that was refused is asked for again
PAUSE_GROWTH = 1.6  # factor by which that grows each time
PAUSE_MAX = 30.0  # seconds
NAME_SHOWN_MAX = 60  # characters of a name in a line


@frozen
class Refusal:
    """A reply code with a part of its text, or of the method's name, and what that means.

    Attributes:
        words: what is wrong, with the broker's text in brackets, and what cures it.
        passes: whether it may be granted later with nothing changed here.
    """

    code: int
    part: str
    words: str
    passes: bool = False


NO_SUCH_TYPE = "is of a type that this broker does not have ({}): enable the plugin that has it"
# The first that fits counts.
REFUSALS = (
    Refusal(
        ReplyCode.PRECONDITION_FAILED,
        "inequivalent",
        "exists with other properties ({}): delete it on the broker, or declare it as it is there",
    ),
    Refusal(
        ReplyCode.PRECONDITION_FAILED,
        "limit in vhost",
        "is too many for its virtual host ({}): raise the limit (rabbitmqctl set_vhost_limits), or delete others",
        passes=True,
    ),
    Refusal(
        ReplyCode.PRECONDITION_FAILED,
        "limit in cluster",
        "is too many for the cluster ({}): raise the limit, or delete others",
        passes=True,
    ),
    Refusal(ReplyCode.PRECONDITION_FAILED, "unknown exchange type", NO_SUCH_TYPE),
    Refusal(ReplyCode.COMMAND_INVALID, "unknown exchange type", NO_SUCH_TYPE),
    Refusal(ReplyCode.PRECONDITION_FAILED, "", "is refused by the broker ({}): correct its arguments"),
    Refusal(
        ReplyCode.RESOURCE_LOCKED,
        "",
        "belongs to another connection ({}): it can be used when that connection has ended",
        passes=True,
    ),
    Refusal(
        ReplyCode.NOT_IMPLEMENTED,
        "",
        "is of a kind that this broker does not have ({}): set AMQP_URI (or --broker) to a RabbitMQ, or declare it"
        " without that argument (QUEUE_TYPE in the config, queue_type= of the entrypoint)",
    ),
    Refusal(
        ReplyCode.ACCESS_REFUSED,
        "'amq.default'",
        "hands messages on through the default exchange, and our user may not write to that ({}): give it the"
        " permission for amq.default (rabbitmqctl set_permissions)",
    ),
    Refusal(
        ReplyCode.ACCESS_REFUSED,
        " name 'amq.",
        "has a name of the broker's own ({}): give it one that does not begin with amq.",
    ),
    Refusal(
        ReplyCode.ACCESS_REFUSED,
        "in exclusive use",
        "has a consumer that wants to be its only one ({}): it can be consumed when that one has ended",
        passes=True,
    ),
    Refusal(
        ReplyCode.ACCESS_REFUSED,
        "basic.consume",
        "may not be consumed by our user ({}): give it the permission to read (rabbitmqctl set_permissions)",
    ),
    Refusal(
        ReplyCode.ACCESS_REFUSED,
        "",
        "may not be declared by our user ({}): give it the permission (rabbitmqctl set_permissions), or declare it as"
        " an administrator",
    ),
)
NOT_THERE = Refusal(
    ReplyCode.NOT_FOUND, "", "is not there ({}), and is declared by others: see whether they run", passes=True
)


def explained(what: str, error: AmqpError, passive: bool = False) -> Exception | None:
    """The error in words that begin with ``what``; None if it is for others to judge."""
    about = f"{error.text} about {error.method}"
    found = next((each for each in REFUSALS if error.code == each.code and each.part in about), None)
    if passive and error.code == ReplyCode.NOT_FOUND:
        found = NOT_THERE
    if found is None:
        return None
    words = f"{what} {found.words.format(error.text)}"
    if found.passes and isinstance(error, ChannelClosedByBroker):
        return RefusedForNow(error.code, words, error.method)
    return DeclarationMismatch(words)


def passes(error: BaseException) -> bool:
    """Whether it may be granted later with nothing changed here."""
    return isinstance(error, RefusedForNow) or (isinstance(error, AmqpError) and error.code == ReplyCode.RESOURCE_ERROR)


def unwritable(what: str, error: ValueError) -> CantBeDeclared:
    """The error for a name or an argument that AMQP can't carry, in words that begin with ``what``."""
    return CantBeDeclared(
        f"{what} has something that AMQP can't carry ({error}): correct its names, numbers and arguments"
    )


def named(kind: str, name: str) -> str:
    """A thing with its name, for a line: ``queue 'rpc-shop'``."""
    shown = name if len(name) <= NAME_SHOWN_MAX else f"{name[:NAME_SHOWN_MAX]}…"
    return f"{kind} {shown!r}"


def pause(refused: int) -> float:
    """Seconds until it is asked for again, after so many refusals in a row."""
    return min(PAUSE_FIRST * PAUSE_GROWTH ** min(refused - 1, 20), PAUSE_MAX)
