"""The smallest service of txservices, for its start and its memory."""

from txservices.rpc import rpc


class Echo:
    name = "benchmark"

    @rpc
    def echo(self, text):
        return text
