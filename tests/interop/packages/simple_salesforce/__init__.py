"""Stands in for simple-salesforce, as far as nameko-salesforce uses it: records of this process."""

from collections import defaultdict

records = defaultdict(list)


class SalesforceExpiredSession(Exception):
    pass


class Resource:
    def __init__(self, kind):
        self.kind = kind

    def create(self, data):
        records[self.kind].append({"Id": str(len(records[self.kind])), **data})

    def get(self, number):
        return records[self.kind][int(number)]


class Salesforce:
    def __init__(self, username, password, security_token, sandbox, version, session):
        self.uses = 0

    def query(self, text):
        found = [each for each in records["PushTopic"] if f"'{each['Name']}'" in text]
        return {"totalSize": len(found), "records": found}

    def __getattr__(self, kind):
        self.uses += 1
        if self.uses > 4:  # its session is over
            raise SalesforceExpiredSession
        return Resource(kind)
