"""Accounts in a database, by nameko-sqlalchemy's two providers."""

from nameko.rpc import rpc
from nameko_sqlalchemy import Database, DatabaseSession, transaction_retry
from sqlalchemy import Column, Integer, String
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import declarative_base

Model = declarative_base(name="Model")


class Account(Model):
    __tablename__ = "accounts"

    owner = Column(String, primary_key=True)
    balance = Column(Integer, nullable=False, default=0)


class UsesSqlalchemy:
    """The session of a worker is closed when that has ended; those of ``get_session`` commit as their block ends."""

    name = "uses_sqlalchemy"

    db = Database(Model)
    session = DatabaseSession(Model)
    tries = 0

    @rpc
    def create(self):
        Model.metadata.drop_all(self.db.session.get_bind())
        Model.metadata.create_all(self.db.session.get_bind())

    @rpc
    def open(self, owner, balance):
        with self.db.get_session() as session:
            session.add(Account(owner=owner, balance=balance))

    @rpc
    def move(self, source, target, amount):
        with self.db.get_session() as session:
            session.get(Account, source).balance -= amount
            session.flush()
            session.get(Account, target).balance += amount

    @rpc
    def forget_to_commit(self, owner):
        self.session.add(Account(owner=owner, balance=1))
        self.session.flush()
        return self.session.query(Account).count()

    @rpc
    def balances(self):
        return {each.owner: each.balance for each in self.session.query(Account)}

    @rpc
    @transaction_retry(total=3)
    def unlucky(self, times):
        self.tries += 1
        if self.tries <= times:
            raise OperationalError("lost", {}, Exception("connection"))
        return self.tries
