"""The smallest service of nameko, for its start and its memory."""

from nameko.rpc import rpc


class Echo:
    name = "benchmark"

    @rpc
    def echo(self, text):
        return text
