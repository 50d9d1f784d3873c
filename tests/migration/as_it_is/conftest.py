import os

import pytest

if "AMQP_URI" in os.environ:  # nameko's own fixture needs the management of RabbitMQ

    @pytest.fixture
    def rabbit_config():
        return {"AMQP_URI": os.environ["AMQP_URI"], "username": "guest", "vhost": "/"}
