"""Where what is logged goes: Twisted's logger and the standard library's become one.

With the config key LOGGING the standard library's logging decides (`logging.config.dictConfig`) and Twisted's
events go there, each to the logger named by the module that it is of. Without it Twisted's log decides (twistd's
own, or a line each on stdout under `txservices run`) and the standard library's records of INFO and above go there.

What a worker logs bears its call id: after the namespace in a line, as `call_id` in Twisted's events and in standard
records, where a format of LOGGING may have `%(call_id)s`. It is known by the context (contextvars) that the line is
logged in: that of a method in all its `await`s, in its thread if it is a blocking one, and in the callbacks of what it
calls and tells and of the Deferred that it returns. Those of other Deferreds run in the context of whoever fires them,
which is Twisted's way.
"""

from __future__ import annotations

import logging
import logging.config
import re
import sys
import time
from collections.abc import Mapping
from typing import Any, TextIO

from constantly import NamedConstant
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
    globalLogPublisher,
)
from zope.interface import implementer

from txservices.constants import LOGGING_CONFIG_KEY
from txservices.exceptions import ConfigurationError
from txservices.workers import this_worker

LEVELS = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
    (logging.NOTSET, LogLevel.debug),
)

TO_STANDARD = {**{ours: theirs for theirs, ours in LEVELS}, LogLevel.debug: logging.DEBUG}
LEGACY = "log_legacy"  # namespace of what comes by Twisted's old logger, whoever says it
NO_CALL = "-"  # in place of a call id where no worker runs


@implementer(ILogObserver)
class NotesCallId:
    """An observer before all others: it adds the call id to the events of a worker.

    Twisted's own observers, twistd's log file for one, write what is in ``log_system`` before the text.
    """

    def __call__(self, event: LogEvent) -> None:
        worker = this_worker.get()
        if worker is not None:
            event["call_id"] = worker.call_id
            level = event.get("log_level", LogLevel.info).name
            system = event.get("log_system") or f"{event.get('log_namespace', NO_CALL)}#{level}"
            event["log_system"] = f"{system} {worker.call_id}"


notes_call_id = NotesCallId()
make_record = logging.getLogRecordFactory()


def make_record_with_call_id(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """What makes the standard library's records, from `standard` on."""
    record = make_record(*args, **kwargs)
    worker = this_worker.get()
    record.call_id = NO_CALL if worker is None else worker.call_id
    return record


class ToTwisted(logging.Handler):
    """A standard handler that hands its records to Twisted's logger."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next(ours for theirs, ours in LEVELS if record.levelno >= theirs)
        Logger(record.name).emit(level, "{text}", text=self.format(record))


@implementer(ILogObserver)
class ToStandard:
    """An observer that hands events to the standard logger of their namespace: `txservices.amqp.connection`.

    Twisted's own has one logger for all, by which LOGGING could not tell them apart.
    """

    def __call__(self, event: LogEvent) -> None:
        namespace = event.get("log_namespace", LEGACY)
        logger = logging.getLogger("twisted" if namespace == LEGACY else namespace)
        level = TO_STANDARD.get(event.get("log_level", LogLevel.info), logging.INFO)
        if logger.isEnabledFor(level):  # formatting is most of the work
            failure = event.get("log_failure")
            trace = None if failure is None else (failure.type, failure.value, failure.getTracebackObject())
            logger.log(level, "%s", formatEvent(event), exc_info=trace)


# what Twisted says of each port that opens or closes, in the words of its old logger
PORTS = re.compile(r"\(\w+ Port \S+ Closed\)|.* starting on \S+")


def one_line(event: LogEvent) -> str | None:
    """`10:20:30 info txservices.rpc: what happened`; a failure's traceback follows on lines of its own.

    `10:20:30 info app.stock [stock.sold.…]: what happened` where a worker says it.
    """
    text = formatEvent(event)
    if (not text and "log_failure" not in event) or PORTS.fullmatch(text):
        return None
    level = event.get("log_level", LogLevel.info).name
    clock = time.strftime("%H:%M:%S", time.localtime(event.get("log_time")))
    call = f" [{event['call_id']}]" if "call_id" in event else ""
    line = f"{clock} {level} {event.get('log_namespace', '-')}{call}: {text}\n"
    failure = event.get("log_failure")
    return line if failure is None else line + failure.getTraceback()


def to_file(file: TextIO, level: NamedConstant = LogLevel.info) -> ILogObserver:
    """An observer that writes a line an event from `level` on, without Twisted's comings and goings."""
    predicate = LogLevelFilterPredicate(defaultLogLevel=level)
    predicate.setLogLevelForNamespace("twisted", LogLevel.warn)
    return FilteringLogObserver(FileLogObserver(file, one_line), [predicate])


def begin(config: Mapping[str, Any], file: TextIO = sys.stdout, level: NamedConstant = LogLevel.info) -> None:
    """Start logging where nobody else does: under `txservices run` and its like."""
    observer: ILogObserver = ToStandard() if config.get(LOGGING_CONFIG_KEY) else to_file(file, level)
    standard(config)
    globalLogBeginner.beginLoggingTo([notes_call_id, observer], redirectStandardIO=False)


def join(config: Mapping[str, Any]) -> None:
    """Add ours to a log that is somebody else's: twistd's, which has not begun yet."""
    globalLogPublisher.addObserver(notes_call_id)
    if config.get(LOGGING_CONFIG_KEY):
        globalLogPublisher.addObserver(ToStandard())
    standard(config)


def standard(config: Mapping[str, Any]) -> None:
    """Set the standard library's logging up."""
    logging.setLogRecordFactory(make_record_with_call_id)
    wanted = config.get(LOGGING_CONFIG_KEY)
    if not wanted:
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[ToTwisted()])
        return
    try:
        # loggers that exist already would be silenced by default, those of imported services among them
        logging.config.dictConfig({"disable_existing_loggers": False, **wanted})
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        raise ConfigurationError(f"LOGGING: {error}: see the logging.config.dictConfig schema") from error
