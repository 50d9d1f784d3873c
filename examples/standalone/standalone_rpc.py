"""A program that is no service calls one. Type `txservices run rpc` in examples/, and `python standalone_rpc.py` here.

`python standalone_rpc.py amqp://user:password@host/` calls through a broker of your choice. It has a folder of its
own: Python looks for modules in a program's folder first, and would take `examples/http.py` for its own `http`.
"""

import sys

from twisted.internet import task

from txservices.standalone.rpc import ClusterRpcProxy


async def main(reactor, uri="amqp://guest:guest@localhost"):
    config = {"AMQP_URI": uri}
    async with ClusterRpcProxy(config) as cluster_rpc:
        print(await cluster_rpc.service_x.remote_method("hellø"))  # hellø-x-y


if __name__ == "__main__":
    task.react(main, sys.argv[1:])
