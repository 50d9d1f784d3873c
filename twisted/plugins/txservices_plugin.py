"""Where twistd finds `txservices`. Imported whatever it runs, so nothing else is imported here."""

from twisted.application.service import ServiceMaker

txservices = ServiceMaker(
    "txservices", "txservices.command.tap", "Run service classes: RPC, events, HTTP and timers.", "txservices"
)
