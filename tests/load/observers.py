"""What is looked at once a second beside the tasks: the broker's queue, and the replicas of the engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Protocol
from urllib.parse import quote

import aiohttp
import yaml
from yarl import URL

from tests.load.options import BrokerAddress, Options
from tests.load.poster import why
from tests.load.record import Run, Sample

#: Pause between two samples, and how long one may take, in seconds.
SAMPLE_SECONDS, LOOK_SECONDS = 1.0, 3.0

#: What is scaled.
NAMESPACE, DEPLOYMENT = "sluice", "engine"

#: All that observers may report, in the order of the columns.
COLUMNS = ("queue_ready", "queue_unacked", "replicas_wanted", "replicas_ready")


class NotObserved(Exception):
    """The look failed; the message says why."""


class Observer(Protocol):
    async def observe(self) -> Mapping[str, int]:
        """Some of COLUMNS, now. Raises NotObserved."""

    async def close(self) -> None: ...


class QueueObserver:
    """The depth of one queue, from RabbitMQ's management API: as old as its statistics are."""

    def __init__(self, address: BrokerAddress, queue: str) -> None:
        self._url = f"{address.base}/api/queues/{quote(address.vhost, safe='')}/{quote(queue, safe='')}"
        self._queue = queue
        self._session = aiohttp.ClientSession(
            headers={"Authorization": aiohttp.encode_basic_auth(address.user, address.password)},
            timeout=aiohttp.ClientTimeout(total=LOOK_SECONDS),
        )

    async def observe(self) -> Mapping[str, int]:
        try:
            # The address holds %2F, which must be sent as it is.
            async with self._session.get(URL(self._url, encoded=True)) as answer:
                if answer.status != 200:
                    raise NotObserved(f"the broker answers {answer.status} when asked for the queue {self._queue}")
                queue = await answer.json()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NotObserved(f"the broker's management API: {why(error)}") from None
        columns = {"queue_ready": "messages_ready", "queue_unacked": "messages_unacknowledged"}
        # A queue that was made just now has no figures yet.
        return {column: queue[name] for column, name in columns.items() if name in queue}

    async def close(self) -> None:
        await self._session.close()


class DeploymentObserver:
    """How many replicas of the engine are wanted, and how many are ready, from the Kubernetes API."""

    def __init__(self, kubeconfig: str) -> None:
        import kubernetes.aio.config  # noqa: F401 - two seconds, which must not fall into the first look

        self._kubeconfig = kubeconfig
        self._client: Any = None

    async def observe(self) -> Mapping[str, int]:
        from kubernetes.aio import client, config

        try:
            if self._client is None:
                self._client = await config.new_client_from_config(self._kubeconfig, persist_config=False)
            read = client.AppsV1Api(self._client).read_namespaced_deployment
            deployment = await read(DEPLOYMENT, NAMESPACE, _request_timeout=LOOK_SECONDS)
        except (config.ConfigException, yaml.YAMLError, TypeError, ValueError, KeyError) as error:
            raise NotObserved(f"the kubeconfig: {str(error).strip() or type(error).__name__}") from None
        except client.ApiException as error:
            raise NotObserved(f"the Kubernetes API answers {error.status} {error.reason}") from None
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise NotObserved(f"the Kubernetes API: {why(error)}") from None
        return {
            "replicas_wanted": deployment.spec.replicas or 0,
            "replicas_ready": deployment.status.ready_replicas or 0,
        }

    async def close(self) -> None:
        if self._client is not None:
            await self._client.close()


def observers_for(options: Options) -> list[Observer]:
    """Those that the options ask for."""
    observers: list[Observer] = []
    if options.broker is not None:
        observers.append(QueueObserver(options.broker, options.queue))
    if options.kubeconfig is not None:
        observers.append(DeploymentObserver(str(options.kubeconfig)))
    return observers


class Sampler:
    """Adds a sample to the run each second."""

    def __init__(self, run: Run, observers: Sequence[Observer]) -> None:
        self._run = run
        self._observers = observers
        self._over = asyncio.Event()

    async def sample(self) -> None:
        """Until `stop`."""
        due = self._run.clock()
        while not self._over.is_set():
            await self._take()
            due = max(due + SAMPLE_SECONDS, self._run.clock())
            with suppress(TimeoutError):
                await asyncio.wait_for(self._over.wait(), due - self._run.clock())
        await self._take()

    def stop(self) -> None:
        self._over.set()

    async def _take(self) -> None:
        run = self._run
        answers = await asyncio.gather(*(observer.observe() for observer in self._observers), return_exceptions=True)
        observed: dict[str, int] = {}
        for answer in answers:
            if isinstance(answer, NotObserved):
                run.gaps += 1
                run.gap_reason = str(answer)
            elif isinstance(answer, BaseException):
                raise answer
            else:
                observed.update(answer)
        run.samples.append(Sample(run.clock(), len(run.records), run.accepted, run.finished, observed))
