"""pytest's option ``--nameko``: a suite that was written for nameko runs as it is, conftests included."""

from __future__ import annotations

import os
from typing import Any

import pytest

HELP = "nameko's names lead to txservices, and fixtures wait: for a suite that was written for nameko"
STANDS_IN_THE_WAY = "nameko's own pytest plugin is loaded, and has eventlet patch the process: pytest -p no:{} --nameko"
TOO_LATE = "a pytest plugin has imported nameko or eventlet before: pytest -p txservices_nameko --nameko"


def pytest_addoption(parser: pytest.Parser, pluginmanager: pytest.PytestPluginManager) -> None:
    parser.getgroup("txservices").addoption("--nameko", dest="txservices_nameko", action="store_true", help=HELP)
    parser.addini("nameko", HELP, type="bool", default=False)
    if asked_for(pluginmanager.get_plugin("pytestconfig")):
        lead_here(pluginmanager)  # at once: the next plugin may be of a package of nameko's, and import nameko


def asked_for(config: Any) -> bool:
    """Whether the option is there, on a command line that pytest has not read yet."""
    written = *config.invocation_params.args, *config.getini("addopts"), *os.environ.get("PYTEST_ADDOPTS", "").split()
    return "--nameko" in written or bool(config.getini("nameko"))


def lead_here(plugins: pytest.PytestPluginManager) -> None:
    """Have nameko's names lead to txservices. ``UsageError`` if that can't be."""
    from txservices.exceptions import ConfigurationError
    from txservices.migration.imports import install
    from txservices.testing.plugin import NAMEKO, nameko_is_loaded

    if nameko_is_loaded(plugins):
        raise pytest.UsageError(STANDS_IN_THE_WAY.format(NAMEKO))
    try:
        install()
    except ConfigurationError:
        raise pytest.UsageError(TOO_LATE) from None


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before the first conftest is imported: what it imports of nameko is ours."""
    if early_config.known_args_namespace.txservices_nameko or early_config.getini("nameko"):
        lead_here(early_config.pluginmanager)
        early_config.pluginmanager.import_plugin("txservices.migration.fixtures")
