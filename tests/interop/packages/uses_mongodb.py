"""nameko-mongodb's database, and its log of results. The client is mongomock's: PyPI has no MongoDB."""

import queue

import mongomock
import nameko_mongodb.database
from nameko.rpc import rpc

nameko_mongodb.database.MongoClient = mongomock.MongoClient


ended = queue.Queue()


def note(database, worker_ctx, result, exc_info):
    ended.put(worker_ctx.call_id)


class UsesMongodb:
    name = "uses_mongodb"

    db = nameko_mongodb.MongoDatabase(result_backend=True, on_after_worker_result=note)

    @rpc
    def add(self, name):
        self.db.people.insert_one({"name": name})

    @rpc
    def names(self):
        return sorted(each["name"] for each in self.db.people.find())

    @rpc
    def fail(self):
        raise KeyError("nobody")

    @rpc
    def logged(self):
        """The log's entry for the next worker that has ended."""
        found = self.db.logging.find_one({"call_id": ended.get()})
        return [found["method_name"], found["status"], bool(found["exception"])]
