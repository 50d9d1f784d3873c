"""Dependencies that give a method the context data of its call: the user, the language, the token, …"""

from __future__ import annotations

from typing import Any

from txservices.constants import (
    AUTH_TOKEN_CONTEXT_KEY,
    LANGUAGE_CONTEXT_KEY,
    USER_AGENT_CONTEXT_KEY,
    USER_ID_CONTEXT_KEY,
)
from txservices.exceptions import ConfigurationError
from txservices.extensions import DependencyProvider, WorkerContext

__all__ = ["AuthToken", "ContextDataProvider", "Language", "UserAgent", "UserId"]


class ContextDataProvider(DependencyProvider):
    """Injects the value of one key of the call's context data, or None.

    A subclass may name its key by an attribute of the class, in place of an argument.

    Attributes:
        context_key: the key.
    """

    context_key: str

    def __init__(self, context_key: str | None = None) -> None:
        if context_key is not None:
            self.context_key = context_key
        elif not hasattr(self, "context_key"):
            raise ConfigurationError(f"{type(self).__name__} needs the key of the context data that it injects")

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        return worker_ctx.data.get(self.context_key)


class Language(ContextDataProvider):
    """Injects the language of the user."""

    def __init__(self) -> None:
        super().__init__(LANGUAGE_CONTEXT_KEY)


class UserId(ContextDataProvider):
    """Injects the id of the user for whom the call is made."""

    def __init__(self) -> None:
        super().__init__(USER_ID_CONTEXT_KEY)


class UserAgent(ContextDataProvider):
    """Injects the user agent of the user's client."""

    def __init__(self) -> None:
        super().__init__(USER_AGENT_CONTEXT_KEY)


class AuthToken(ContextDataProvider):
    """Injects the token that says what the user is allowed to do."""

    def __init__(self) -> None:
        super().__init__(AUTH_TOKEN_CONTEXT_KEY)
