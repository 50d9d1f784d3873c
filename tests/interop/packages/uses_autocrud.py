"""nameko-autocrud, which gives the class methods as it is bound, and tells what they change by events."""

from nameko.events import EventDispatcher
from nameko.rpc import rpc
from nameko_autocrud import AutoCrudWithEvents
from nameko_sqlalchemy import Database, DatabaseSession
from sqlalchemy import Column, Integer, String
from sqlalchemy.orm import declarative_base

Model = declarative_base(name="Crud")


class Product(Model):
    __tablename__ = "products"

    id = Column(Integer, primary_key=True)
    name = Column(String)


class UsesAutocrud:
    name = "uses_autocrud"

    db = Database(Model)
    session = DatabaseSession(Model)
    dispatch = EventDispatcher()
    products = AutoCrudWithEvents(
        session,
        dispatch,
        "product",
        model_cls=Product,
        create_method_name="create_product",
        get_method_name="get_product",
        list_method_name="list_products",
        update_method_name="update_product",
        delete_method_name="delete_product",
        create_event_name="product_created",
        update_event_name="product_updated",
        delete_event_name="product_deleted",
    )

    @rpc
    def prepare(self):
        Model.metadata.drop_all(self.db.session.get_bind())
        Model.metadata.create_all(self.db.session.get_bind())
