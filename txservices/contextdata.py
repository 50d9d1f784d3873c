"""What travels with a call, for a method to read: who calls, in which language, with which token."""

from __future__ import annotations

from typing import Any

from txservices.constants import (
    AUTH_TOKEN_CONTEXT_KEY,
    LANGUAGE_CONTEXT_KEY,
    USER_AGENT_CONTEXT_KEY,
    USER_ID_CONTEXT_KEY,
)
from txservices.extensions import DependencyProvider, WorkerContext


class ContextDataProvider(DependencyProvider):
    """Injects the value of one key of the caller's context data, or None."""

    def __init__(self, context_key: str) -> None:
        self.context_key = context_key

    def get_dependency(self, worker_ctx: WorkerContext) -> Any:
        return worker_ctx.data.get(self.context_key)


class Language(ContextDataProvider):
    """The caller's language."""

    def __init__(self) -> None:
        super().__init__(LANGUAGE_CONTEXT_KEY)


class UserId(ContextDataProvider):
    """The id of the user on whose behalf the call is."""

    def __init__(self) -> None:
        super().__init__(USER_ID_CONTEXT_KEY)


class UserAgent(ContextDataProvider):
    """The user agent that the user came with."""

    def __init__(self) -> None:
        super().__init__(USER_AGENT_CONTEXT_KEY)


class AuthToken(ContextDataProvider):
    """The token that shows what the user may do."""

    def __init__(self) -> None:
        super().__init__(AUTH_TOKEN_CONTEXT_KEY)
