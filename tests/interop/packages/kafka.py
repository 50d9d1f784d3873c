"""Stands in for kafka-python, as far as nameko-kafka uses it: topics of this process, each with one partition."""

import queue
import time
from collections import defaultdict, namedtuple

Record = namedtuple("Record", "topic partition value")

topics = defaultdict(queue.Queue)
committed = []


class ConsumerRebalanceListener:
    pass


class KafkaProducer:
    DEFAULT_CONFIG = {"bootstrap_servers": None, "value_serializer": None}

    def __init__(self, bootstrap_servers, value_serializer):
        self.servers = bootstrap_servers
        self.serialize = value_serializer

    def send(self, topic, value):
        topics[topic].put(Record(topic, 0, self.serialize(value)))

    def close(self):
        print("the producer is closed", flush=True)


class KafkaConsumer:
    DEFAULT_CONFIG = {"bootstrap_servers": None, "group_id": None, "enable_auto_commit": True}

    def __init__(self, *names, **config):
        (self.topic,) = names
        self.config = config
        self._closed = False

    def _set_consumer_timeout(self):
        self._consumer_timeout = time.time() + 1_000

    def __iter__(self):
        return self

    def __next__(self):
        records = self.poll()
        if not records:
            raise StopIteration
        return records[self.topic][0]

    def poll(self, timeout_ms=None):
        record = topics[self.topic].get()
        return {self.topic: [record]} if record is not None else {}

    def commit(self):
        committed.append(self.topic)

    def close(self):
        self._closed = True
        topics[self.topic].put(None)
        print(f"the consumer of {self.topic} is closed", flush=True)
