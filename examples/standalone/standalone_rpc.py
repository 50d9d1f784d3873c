"""A program that is no service calls one: `txservices run rpc` here, `python standalone_rpc.py` beside it.

`python standalone_rpc.py amqp://user:password@host/` calls through a broker of your choice. It is in a folder of its
own because Python puts a program's folder in front of everything, and beside this one would be an `http.py`.
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
