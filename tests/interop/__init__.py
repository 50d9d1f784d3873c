"""Side by side with the real nameko: its processes and our services on one RabbitMQ.

2.14.1 and 3.0.0rc11, and 2.14.1 with an old kombu.
"""
