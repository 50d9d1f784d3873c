"""nameko-salesforce: its API with a fake of the library under it, and notifications from ``cometd.py``."""

import collections
import collections.abc
import queue

import simple_salesforce
from cometd import Cometd
from nameko import config
from nameko.rpc import rpc

collections.Sequence = collections.abc.Sequence  # which the package asks for; it went with Python 3.10

from nameko_salesforce.api import SalesforceAPI  # noqa: E402
from nameko_salesforce.streaming.client import NotificationHandler, NotificationsClient  # noqa: E402

server = Cometd(config["SALESFORCE"]["SERVER_URI"])
heard = queue.Queue()


class Client(NotificationsClient):
    def login(self):
        super().login()
        self.server_uri = self.server_uri.replace("https:", "http:")  # the server beside this file has no certificate


class Handler(NotificationHandler):
    client = Client()


class UsesSalesforce:
    name = "uses_salesforce"

    salesforce = SalesforceAPI()

    @rpc
    def contacts(self, *names):
        for each in names:
            self.salesforce.Contact.create({"name": each})
        return [self.salesforce.Contact.get(number)["name"] for number in range(len(names))]

    @Handler.decorator("Contacts", query="SELECT Id FROM Contact")
    def changed(self, topic, message):
        heard.put([topic, message["sobject"]])

    @rpc
    def change(self, record):
        """Have the server tell of a record, and give what the service heard."""
        server.events.put({"channel": "/topic/Contacts", "data": {"event": {"replayId": 1}, "sobject": record}})
        return heard.get()

    @rpc
    def asked(self):
        subscribed = [subscription for _, subscription in server.asked if subscription]
        return [subscribed, server.authorized[0], [each["Name"] for each in simple_salesforce.records["PushTopic"]]]
