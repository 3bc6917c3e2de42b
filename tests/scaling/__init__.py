"""Scaling without a cluster: KEDA and the HPA as they are written, over real engines and a real RabbitMQ.

`python -m tests.scaling` runs it in real numbers (`make scaling`); the arithmetic alone is tested in `make test`.
"""
