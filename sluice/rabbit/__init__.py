"""RabbitMQ, by pika. A publisher that many threads share, and a consumer, stand on a link each: one connection, and a
thread, or an event loop, that serves it and opens it again for as long as the process lives.

Other threads never touch a connection: they leave a callback for its own (the only thread-safe call that pika has) and,
where they need an answer, wait on a future.
"""

from sluice.rabbit.broker import RabbitTaskBroker
from sluice.rabbit.topology import declare_topology

__all__ = ["RabbitTaskBroker", "declare_topology"]
