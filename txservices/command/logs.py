"""Where the log goes: Twisted's logger and the standard library's become one.

With the config key LOGGING, the standard library's logging decides (`logging.config.dictConfig`). Twisted's events go
there, each to the logger named after its module. Without LOGGING, Twisted's log decides: twistd's own, or lines on
stdout under `txservices run`. The standard library's records of level INFO and above go there. With LOG_FORMAT: json
the lines on stdout are objects: see ``jsonlogs``. What is printed is in them then, as lines of the logger `stdout`.
With that key or LOG_LEVELS, the lines that twistd has on stdout are ours as well.

A line that a worker logs has its call id and that of its origin, the first of the calls that led to it: after the
namespace in a line of text, and as `call_id` and `origin` in Twisted's events and in standard records, so that a format
in LOGGING may use `%(call_id)s` and `%(origin)s`. The ids are taken from the context (contextvars) in which the line is
logged: see `callids`. A method's context reaches through all its `await`s, into its thread if it is
blocking, and into the callbacks of its calls and of its dispatched events. A callback of any other Deferred, also of
one that the method returns, runs in the context of whoever fires it, as always in Twisted.

Whatever a line says, and wherever it goes, it shows no secret, forges no other line, and has an end: see ``cleans``.
"""

from __future__ import annotations

import logging
import logging.config
import os
import re
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any, TextIO, cast
from weakref import WeakSet

from constantly import NamedConstant
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LoggingFile,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    globalLogBeginner,
    globalLogPublisher,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from txservices import configuration
from txservices.callids import further_ids, ids_of, origin_of, this_worker
from txservices.command.jsonlogs import flush_left, one_object
from txservices.command.outputs import Output, take_any_text
from txservices.exceptions import ConfigurationError
from txservices.safe import brief, name_of
from txservices.utils.printable import in_one_line, indented, printable
from txservices.utils.secrets import hide

LEVELS = (
    (logging.CRITICAL, LogLevel.critical),
    (logging.ERROR, LogLevel.error),
    (logging.WARNING, LogLevel.warn),
    (logging.INFO, LogLevel.info),
    (logging.NOTSET, LogLevel.debug),
)

TO_STANDARD = {**{ours: theirs for theirs, ours in LEVELS}, LogLevel.debug: logging.DEBUG}
NO_LEVELS: Mapping[str, str] = {}
LEGACY = "log_legacy"  # the namespace of every event that comes through Twisted's old logger
NO_CALL = "-"  # written in place of a call id if no worker runs


@implementer(ILogObserver)
class NotesCallId:
    """An observer that adds both ids to the events of a worker. It has to come before all other observers."""

    # log_system, too: Twisted's own observers, such as twistd's log file, write it before the text

    def __call__(self, event: LogEvent) -> None:
        worker = this_worker.get()
        if worker is not None:
            event["call_id"], event["origin"] = worker.call_id, origin_of(worker)
            level = event.get("log_level", LogLevel.info).name
            system = event.get("log_system") or f"{event.get('log_namespace', NO_CALL)}#{level}"
            event["log_ids"] = ids = ids_of(worker)
            event["log_service"] = worker.container.service_name
            event["log_system"] = f"{system} {ids}"
            for further in further_ids:
                event.update(further(worker))


notes_call_id = NotesCallId()
make_record = logging.getLogRecordFactory()
format_exception = logging.Formatter().formatException


def clean(text: str) -> str:
    """A text as the log may have it."""
    return hide(printable(text))


class CleanFailure:
    """A failure whose traceback is clean. In all else it is the failure."""

    def __init__(self, failure: Failure) -> None:
        self.failure = failure

    def getTraceback(self, *args: Any, **kwargs: Any) -> str:
        return clean(self.failure.getTraceback(*args, **kwargs)).rstrip()  # else it ends with an empty line

    def __getattr__(self, name: str) -> Any:
        return getattr(self.failure, name)


@implementer(ILogObserver)
class Cleans:
    """An observer that cleans the text of every event and its traceback, for the observers that come after it."""

    def __call__(self, event: LogEvent) -> None:
        text = formatEvent(event)
        cleaned = clean(text)
        if cleaned != text:
            event.setdefault("log_original", event.get("log_format"))
            event["log_format"], event["log_text"] = "{log_text}", cleaned
        failure = event.get("log_failure")
        if failure is not None:
            event["log_failure"] = CleanFailure(failure)


cleans = Cleans()


def make_our_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
    """Make a record of the standard library's, with both ids, and clean."""
    record = make_record(*args, **kwargs)
    worker = this_worker.get()
    record.call_id, record.origin = (NO_CALL, NO_CALL) if worker is None else (worker.call_id, origin_of(worker))
    record.trace_id = record.span_id = NO_CALL
    if worker is not None:
        for further in further_ids:
            vars(record).update(further(worker))
    try:
        text = original = record.getMessage()
    except BaseException as error:  # also a SystemExit of an argument's must not be raised in the code that logs
        text, original = f"can't be formatted: {brief(record.msg)} % {brief(record.args)}: {brief(error)}", None
    cleaned = indented(clean(text))
    if cleaned != original:
        record.msg, record.args = cleaned, None
    if record.exc_info and record.exc_info[0] is not None:
        record.exc_text = indented(clean(format_exception(record.exc_info)))  # formatters use it as it is
    return record


def lines_lost(handler: logging.Handler, record: logging.LogRecord) -> None:
    """Tell on stderr that a handler can't write, once: the standard library prints the stack for each line."""
    if handler not in failing:
        failing.add(handler)
        error = sys.exc_info()[1]
        text = in_one_line(f"lines of the log are lost: {handler!r}: {name_of(type(error))} {brief(str(error))}")
        Output(sys.__stderr__).line(hide(text))


failing: WeakSet[logging.Handler] = WeakSet()


class ToTwisted(logging.Handler):
    """A handler of the standard library that passes records on to Twisted's logger."""

    def emit(self, record: logging.LogRecord) -> None:
        level = next(ours for theirs, ours in LEVELS if record.levelno >= theirs)
        # the record goes along for JSON, in which the traceback is apart from the text
        Logger(record.name).emit(level, "{text}", text=flush_left(self.format(record)), log_record=record)


@implementer(ILogObserver)
class ToStandard:
    """An observer that passes an event on to the standard logger of its namespace, as `txservices.amqp.connection`."""

    # Twisted's own observer for this sends all events to one logger, so LOGGING could not tell them apart.

    def __call__(self, event: LogEvent) -> None:
        namespace = event.get("log_namespace", LEGACY)
        logger = logging.getLogger("twisted" if namespace == LEGACY else namespace)
        level = TO_STANDARD.get(event.get("log_level", LogLevel.info), logging.INFO)
        if logger.isEnabledFor(level):  # formatting is most of the work
            failure = event.get("log_failure")
            trace = None if failure is None else (failure.type, failure.value, failure.getTracebackObject())
            logger.log(level, "%s", formatEvent(event), exc_info=trace)  # the record is cleaned when it is made


# the lines that Twisted logs for each port that opens or closes
PORTS = re.compile(r"\(\w+ Port \S+ Closed\)|.* starting on \S+")


def is_worth_a_line(event: LogEvent) -> bool:
    text = formatEvent(event)
    return bool(text or "log_failure" in event) and not PORTS.fullmatch(text)


def one_line(event: LogEvent) -> str:
    """The text of an event: `10:20:30 info txservices.rpc: what happened`. Further lines of it, and the traceback of a
    failure, begin with a tab.

    In a worker `10:20:30 info app.stock [stock.sold.… from web.buy.…]: what happened`.
    """
    text = formatEvent(event)
    level = event.get("log_level", LogLevel.info).name
    clock = time.strftime("%H:%M:%S", time.localtime(event.get("log_time")))
    call = f" [{event['log_ids']}]" if "log_ids" in event else ""
    failure = event.get("log_failure")
    if failure is not None:
        text = f"{text}\n{failure.getTraceback().rstrip()}"
    return f"{clock} {level} {event.get('log_namespace', '-')}{call}: {indented(text)}\n"


def to_file(
    file: TextIO,
    level: NamedConstant = LogLevel.info,
    form: Callable[[LogEvent], str] = one_line,
    levels: Mapping[str, str] = NO_LEVELS,
) -> ILogObserver:
    """An observer that writes events of `level` and above, one a line; Twisted's own only from warnings on.

    Those of the loggers in `levels`, and of all below them, from their own levels on.
    """
    predicate = LogLevelFilterPredicate(defaultLogLevel=level)
    for name, least in {"twisted": LogLevel.warn.name, **levels}.items():
        predicate.setLogLevelForNamespace(name, LogLevel.levelWithName(least))
    output: Any = Output(file)
    observer = FileLogObserver(output, lambda event: form(event) if is_worth_a_line(event) else None)
    return FilteringLogObserver(observer, [predicate])


def begin(config: Mapping[str, Any], file: TextIO | None = None, level: NamedConstant = LogLevel.info) -> None:
    """Start logging, to stdout unless told otherwise, where nobody else does: under `txservices run` and others."""
    observer = observer_of(config, file or sys.stdout, level)
    if is_json(config):
        sys.stdout = LoggingFile(Logger("stdout"))  # else what is printed would be between the objects
    standard(config)
    globalLogBeginner.beginLoggingTo([notes_call_id, cleans, observer], redirectStandardIO=False)


def observer_of(config: Mapping[str, Any], file: TextIO, level: NamedConstant = LogLevel.info) -> ILogObserver:
    """The observer that the config asks for; `file` is where lines go without LOGGING."""
    if configuration.LOGGING.of(config):
        return ToStandard()
    return to_file(file, level, one_object if is_json(config) else one_line, configuration.LOG_LEVELS.of(config))


def is_json(config: Mapping[str, Any]) -> bool:
    return configuration.LOG_FORMAT.of(config) == "json"


def join(config: Mapping[str, Any]) -> None:
    """Add our observers to the log of twistd, which starts logging later."""
    globalLogPublisher.addObserver(notes_call_id)
    globalLogPublisher.addObserver(cleans)
    take_any_text()
    if has_lines_of_ours(config):
        globalLogPublisher.addObserver(once(observer_of(config, sys.stdout)))
    standard(config)


def once(observer: ILogObserver) -> ILogObserver:
    """The observer, told of each event once: twistd gives us once more whatever was logged before its log began."""

    def tell(event: LogEvent) -> None:
        if "log_told" not in event:
            event["log_told"] = True
            observer(event)

    return cast(ILogObserver, tell)


def has_lines_of_ours(config: Mapping[str, Any]) -> bool:
    """Whether the config says something about the log that twistd's own does not do."""
    return bool(configuration.LOGGING.of(config) or configuration.LOG_LEVELS.of(config)) or is_json(config)


def are_apart(twistd: Mapping[str, Any] | None) -> bool:
    """Whether twistd, which was given these options, logs elsewhere than on the terminal.

    ``twist`` has no such options: it stays in the foreground, and says where it logs in ways of its own.
    """
    if twistd is None or "nodaemon" not in twistd:  # it is not twistd that makes the service
        return False
    return not twistd["nodaemon"] or bool(twistd["syslog"]) or twistd["logfile"] not in (None, "-")


def leave_stdout(config: Mapping[str, Any]) -> None:
    """Keep twistd's own log from stdout if the config decides about lines: each would be there twice.

    twistd writes to whatever sys.stdout is when it begins to log, and then has what is printed be logged. A log file or
    syslog that twistd was told to write to has each line once.
    """
    if has_lines_of_ours(config):
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115  # twistd keeps it


def standard(config: Mapping[str, Any]) -> None:
    """Set up the standard library's logging. ``ConfigurationError`` if LOGGING is wrong."""
    logging.setLogRecordFactory(make_our_record)
    logging.Handler.handleError = lines_lost  # type: ignore[assignment, method-assign]  # the library has no other way to say it for all handlers
    wanted = configuration.LOGGING.of(config)
    if not wanted:
        logging.basicConfig(level=logging.INFO, format="%(message)s", handlers=[ToTwisted()])
        for name, level in configuration.LOG_LEVELS.of(config).items():
            logging.getLogger(name).setLevel(TO_STANDARD[LogLevel.levelWithName(level)])
        return
    try:
        # the default, True, would silence every logger that exists already, also those of imported services
        logging.config.dictConfig({"disable_existing_loggers": False, **wanted})
    except (ValueError, TypeError, AttributeError, ImportError) as error:
        why = f": {error.__cause__}" if error.__cause__ else ""  # as of a class that can't be imported
        raise ConfigurationError(f"LOGGING: {error}{why}: see the logging.config.dictConfig schema") from error
