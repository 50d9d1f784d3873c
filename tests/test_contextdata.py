"""Context data and configuration, as a method finds them."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import TestCase

from txservices.containers import ServiceContainer
from txservices.contextdata import AuthToken, ContextDataProvider, Language, UserAgent, UserId
from txservices.dependency_providers import Config
from txservices.extensions import Entrypoint

hook = Entrypoint.decorator


class Service:
    name = "service"

    language = Language()
    user_id = UserId()
    user_agent = UserAgent()
    auth_token = AuthToken()
    custom = ContextDataProvider("custom")
    config = Config()

    @hook
    def method(self) -> Any:
        return [self.language, self.user_id, self.user_agent, self.auth_token, self.custom]

    @hook
    def change(self) -> Any:
        self.config["new"] = True
        return self.config


class ContextData(TestCase):
    """The context that a worker is given."""

    def call(self, method: str, config: dict[str, Any], data: dict[str, Any] | None) -> Any:
        container = ServiceContainer(Service, config)
        entrypoint = next(each for each in container.entrypoints if each.method_name == method)
        results: list[Any] = []
        container.on_worker_ended.append(lambda worker_ctx, result, exc_info: results.append(result))
        container.spawn_worker(entrypoint, (), {}, data)
        return results[0]

    def test_values(self) -> None:
        """Each provider gives the value of its key."""
        data = {"language": "en", "user_id": 7, "user_agent": "curl", "auth_token": "t", "custom": [1]}
        self.assertEqual(self.call("method", {}, data), ["en", 7, "curl", "t", [1]])

    def test_unset(self) -> None:
        """A value that the caller didn't send is None."""
        self.assertEqual(self.call("method", {}, None), [None] * 5)

    def test_config(self) -> None:
        """The configuration is a copy: changing it changes nobody else's."""
        config = {"key": "value"}
        self.assertEqual(self.call("change", config, None), {"key": "value", "new": True})
        self.assertEqual(config, {"key": "value"})
