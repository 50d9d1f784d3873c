"""nameko-kafka's two extensions, with a fake of the library under them: ``kafka.py`` beside this file."""

import queue

import kafka
from nameko.rpc import rpc
from nameko_kafka import KafkaProducer, Semantic, consume

heard = queue.Queue()


class UsesKafka:
    name = "uses_kafka"

    producer = KafkaProducer(bootstrap_servers="nowhere", value_serializer=str.encode)

    @rpc
    def send(self, topic, text):
        self.producer.send(topic, text)

    @consume("plain", group_id="all")
    def plain(self, record):
        heard.put([record.topic, record.value.decode()])

    @consume("sure", group_id="all", semantic=Semantic.AT_LEAST_ONCE)
    def sure(self, record):
        heard.put([record.topic, record.value.decode()])

    @rpc
    def next(self):
        """The next thing that is heard."""
        return heard.get()

    @rpc
    def committed(self):
        return kafka.committed
