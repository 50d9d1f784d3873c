"""The one table of AMQP 0-9-1: every method, property and code, RabbitMQ's extensions included.

The codec reads it in both directions, the client makes txamqp's ``Spec`` from it (``amqp/spec.py``), and the embedded
broker dispatches by it. A method is added by adding a line.

Source: AMQP 0-9-1's XML and RabbitMQ's protocol extensions (``basic.nack``, ``confirm``, ``exchange.bind``,
``connection.blocked``, ``connection.update-secret``).
"""

from __future__ import annotations

from enum import IntEnum

from attrs import frozen

PROTOCOL_HEADER = b"AMQP\x00\x00\x09\x01"

FRAME_METHOD = 1
FRAME_HEADER = 2
FRAME_BODY = 3
FRAME_HEARTBEAT = 8
FRAME_END = 0xCE
FRAME_MIN_SIZE = 4096  # bytes; the least that either side may negotiate
FRAME_OVERHEAD = 8  # bytes: type, channel, size and the end octet

BASIC_CLASS = 60


class ReplyCode(IntEnum):
    """What ``connection.close``, ``channel.close`` and ``basic.return`` give as their reason."""

    REPLY_SUCCESS = 200
    CONTENT_TOO_LARGE = 311
    NO_ROUTE = 312
    NO_CONSUMERS = 313
    CONNECTION_FORCED = 320
    INVALID_PATH = 402
    ACCESS_REFUSED = 403
    NOT_FOUND = 404
    RESOURCE_LOCKED = 405
    PRECONDITION_FAILED = 406
    FRAME_ERROR = 501
    SYNTAX_ERROR = 502
    COMMAND_INVALID = 503
    CHANNEL_ERROR = 504
    UNEXPECTED_FRAME = 505
    RESOURCE_ERROR = 506
    NOT_ALLOWED = 530
    NOT_IMPLEMENTED = 540
    INTERNAL_ERROR = 541


# These errors close the connection; all others close the channel (AMQP 0-9-1, "reply-code").
HARD_ERRORS = frozenset(
    (
        ReplyCode.CONNECTION_FORCED,
        ReplyCode.INVALID_PATH,
        ReplyCode.FRAME_ERROR,
        ReplyCode.SYNTAX_ERROR,
        ReplyCode.COMMAND_INVALID,
        ReplyCode.CHANNEL_ERROR,
        ReplyCode.UNEXPECTED_FRAME,
        ReplyCode.RESOURCE_ERROR,
        ReplyCode.NOT_ALLOWED,
        ReplyCode.NOT_IMPLEMENTED,
        ReplyCode.INTERNAL_ERROR,
    )
)

# With these a broker closes the connection because of something that it was asked. RabbitMQ 3.10 and 4.0 close it with
# 541 for a number in a header that is not finite, and for a decimal in a header of a message to a stream.
REQUEST_ERRORS = frozenset(
    (
        ReplyCode.FRAME_ERROR,
        ReplyCode.SYNTAX_ERROR,
        ReplyCode.COMMAND_INVALID,
        ReplyCode.NOT_IMPLEMENTED,
        ReplyCode.INTERNAL_ERROR,
    )
)


@frozen
class Method:
    """One method of the protocol, e.g. ``queue.declare``: its numbers, its arguments, and what answers it."""

    name: str
    class_id: int
    method_id: int
    fields: tuple[tuple[str, str], ...]  # (name, type) in the order of the wire
    content: bool  # a header frame and bodies follow
    responses: tuple[str, ...]  # names of the methods that answer it; empty if it isn't answered

    @property
    def id(self) -> int:
        """The four bytes that open the method's frame, as one number."""
        return self.class_id << 16 | self.method_id


# A name that another client may have chosen is "octets": AMQP does not say that it is UTF-8, and RabbitMQ requires that
# only of other names. "text" is for people; a broker may have cut it in the middle of a character.
# class and number | method and number | arguments as name:type | "+" if content follows | "> who answers"
TABLE = """
connection 10
  start 10          version_major:octet version_minor:octet server_properties:table mechanisms:longstr locales:longstr > start-ok
  start-ok 11       client_properties:table mechanism:shortstr response:longstr locale:shortstr
  secure 20         challenge:longstr > secure-ok
  secure-ok 21      response:longstr
  tune 30           channel_max:short frame_max:long heartbeat:short > tune-ok
  tune-ok 31        channel_max:short frame_max:long heartbeat:short
  open 40           virtual_host:shortstr reserved_1:shortstr reserved_2:bit > open-ok
  open-ok 41        reserved_1:shortstr
  close 50          reply_code:short reply_text:text class_id:short method_id:short > close-ok
  close-ok 51
  blocked 60        reason:text
  unblocked 61
  update-secret 70  new_secret:longstr reason:shortstr > update-secret-ok
  update-secret-ok 71
channel 20
  open 10           reserved_1:shortstr > open-ok
  open-ok 11        reserved_1:longstr
  flow 20           active:bit > flow-ok
  flow-ok 21        active:bit
  close 40          reply_code:short reply_text:text class_id:short method_id:short > close-ok
  close-ok 41
exchange 40
  declare 10        reserved_1:short exchange:shortstr type:shortstr passive:bit durable:bit auto_delete:bit internal:bit nowait:bit arguments:table > declare-ok
  declare-ok 11
  delete 20         reserved_1:short exchange:shortstr if_unused:bit nowait:bit > delete-ok
  delete-ok 21
  bind 30           reserved_1:short destination:shortstr source:shortstr routing_key:shortstr nowait:bit arguments:table > bind-ok
  bind-ok 31
  unbind 40         reserved_1:short destination:shortstr source:shortstr routing_key:shortstr nowait:bit arguments:table > unbind-ok
  unbind-ok 51
queue 50
  declare 10        reserved_1:short queue:shortstr passive:bit durable:bit exclusive:bit auto_delete:bit nowait:bit arguments:table > declare-ok
  declare-ok 11     queue:shortstr message_count:long consumer_count:long
  bind 20           reserved_1:short queue:shortstr exchange:shortstr routing_key:shortstr nowait:bit arguments:table > bind-ok
  bind-ok 21
  purge 30          reserved_1:short queue:shortstr nowait:bit > purge-ok
  purge-ok 31       message_count:long
  delete 40         reserved_1:short queue:shortstr if_unused:bit if_empty:bit nowait:bit > delete-ok
  delete-ok 41      message_count:long
  unbind 50         reserved_1:short queue:shortstr exchange:shortstr routing_key:shortstr arguments:table > unbind-ok
  unbind-ok 51
basic 60
  qos 10            prefetch_size:long prefetch_count:short global:bit > qos-ok
  qos-ok 11
  consume 20        reserved_1:short queue:shortstr consumer_tag:shortstr no_local:bit no_ack:bit exclusive:bit nowait:bit arguments:table > consume-ok
  consume-ok 21     consumer_tag:shortstr
  cancel 30         consumer_tag:shortstr nowait:bit > cancel-ok
  cancel-ok 31      consumer_tag:shortstr
  publish 40        reserved_1:short exchange:octets routing_key:octets mandatory:bit immediate:bit +
  return 50         reply_code:short reply_text:text exchange:octets routing_key:octets +
  deliver 60        consumer_tag:shortstr delivery_tag:longlong redelivered:bit exchange:octets routing_key:octets +
  get 70            reserved_1:short queue:shortstr no_ack:bit > get-ok get-empty
  get-ok 71         delivery_tag:longlong redelivered:bit exchange:octets routing_key:octets message_count:long +
  get-empty 72      reserved_1:shortstr
  ack 80            delivery_tag:longlong multiple:bit
  reject 90         delivery_tag:longlong requeue:bit
  recover-async 100 requeue:bit
  recover 110       requeue:bit > recover-ok
  recover-ok 111
  nack 120          delivery_tag:longlong multiple:bit requeue:bit
confirm 85
  select 10         nowait:bit > select-ok
  select-ok 11
tx 90
  select 10         > select-ok
  select-ok 11
  commit 20         > commit-ok
  commit-ok 21
  rollback 30       > rollback-ok
  rollback-ok 31
"""  # noqa: E501  (a table is read across)

# The properties of a message in the order of the wire; the first one is the highest bit of the flags.
PROPERTIES: tuple[tuple[str, str], ...] = (
    ("content_type", "shortstr"),
    ("content_encoding", "shortstr"),
    ("headers", "table"),
    ("delivery_mode", "octet"),
    ("priority", "octet"),
    ("correlation_id", "shortstr"),
    ("reply_to", "shortstr"),
    ("expiration", "shortstr"),
    ("message_id", "shortstr"),
    ("timestamp", "timestamp"),
    ("type", "shortstr"),
    ("user_id", "shortstr"),
    ("app_id", "shortstr"),
    ("cluster_id", "shortstr"),
)


def read_table(table: str) -> tuple[dict[str, int], dict[str, Method]]:
    """``TABLE`` as (class names with their numbers, methods by full name)."""
    classes: dict[str, int] = {}
    methods: dict[str, Method] = {}
    for line in table.strip().splitlines():
        words, _, answers = line.partition(">")
        name, number, *arguments = words.split()
        if not line.startswith(" "):
            class_name = name
            classes[name] = int(number)
            continue
        fields = tuple((field, kind) for field, _, kind in (a.partition(":") for a in arguments if a != "+"))
        full = f"{class_name}.{name}"
        methods[full] = Method(
            name=full,
            class_id=classes[class_name],
            method_id=int(number),
            fields=fields,
            content="+" in arguments,
            responses=tuple(f"{class_name}.{answer}" for answer in answers.split()),
        )
    return classes, methods


CLASSES, METHODS = read_table(TABLE)
METHODS_BY_ID: dict[int, Method] = {method.id: method for method in METHODS.values()}
