"""A suite in nameko's style, with the fixtures that nameko-sqlalchemy brings to pytest."""

import pytest
from nameko.testing.services import entrypoint_hook, worker_factory
from uses_sqlalchemy import Account, Model, UsesSqlalchemy


@pytest.fixture(scope="session")
def model_base():
    return Model


@pytest.mark.parametrize("owner", ["ann", "bob"])
def test_session(db_session, owner):
    assert db_session.query(Account).count() == 0
    db_session.add(Account(owner=owner, balance=1))
    db_session.commit()


def test_database(database):
    service = worker_factory(UsesSqlalchemy, db=database, session=database.session)
    service.open("ann", 3)
    service.open("bob", 4)
    service.move("ann", "bob", 2)
    assert service.balances() == {"ann": 1, "bob": 6}


def test_service(container_factory, rabbit_config, tmp_path):
    uris = {"uses_sqlalchemy:Model": f"sqlite:///{tmp_path}/accounts"}
    container = container_factory(UsesSqlalchemy, {**rabbit_config, "DB_URIS": uris})
    container.start()
    with entrypoint_hook(container, "create") as create:
        create()
    with entrypoint_hook(container, "open") as open_account:
        open_account("ann", 3)
    with entrypoint_hook(container, "balances") as balances:
        assert balances() == {"ann": 3}
