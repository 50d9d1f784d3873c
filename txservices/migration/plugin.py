"""pytest's option ``--nameko``: a suite that was written for nameko runs as it is, conftests included."""

from __future__ import annotations

import pytest

HELP = "nameko's names lead to txservices, and fixtures wait: for a suite that was written for nameko"
STANDS_IN_THE_WAY = "nameko's own pytest plugin is loaded, and has eventlet patch the process: pytest -p no:{} --nameko"


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.getgroup("txservices").addoption("--nameko", dest="txservices_nameko", action="store_true", help=HELP)
    parser.addini("nameko", HELP, type="bool", default=False)


@pytest.hookimpl(tryfirst=True)
def pytest_load_initial_conftests(early_config: pytest.Config) -> None:
    """Before the first conftest is imported: what it imports of nameko is ours."""
    if not (early_config.known_args_namespace.txservices_nameko or early_config.getini("nameko")):
        return
    from txservices.testing.plugin import NAMEKO, nameko_is_loaded

    plugins = early_config.pluginmanager
    if nameko_is_loaded(plugins):
        raise pytest.UsageError(STANDS_IN_THE_WAY.format(NAMEKO))
    from txservices.migration.imports import install

    install()
    plugins.import_plugin("txservices.migration.fixtures")
