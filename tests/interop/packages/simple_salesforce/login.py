"""See the package."""

from urllib.parse import urlsplit

from nameko import config


def SalesforceLogin(session, username, password, security_token, sandbox, sf_version):
    return f"token of {username}", urlsplit(config["SALESFORCE"]["SERVER_URI"]).netloc
