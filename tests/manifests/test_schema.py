"""The check of single objects finds what an API server would refuse, and what it would drop without a word."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import yaml

from tests.manifests.schema import problems_of

SOUND: dict[str, Any] = {
    found["kind"]: found
    for found in yaml.safe_load_all("""
apiVersion: apps/v1
kind: Deployment
metadata: {name: engine, namespace: sluice, labels: {app.kubernetes.io/name: engine}}
spec:
  strategy: {type: RollingUpdate, rollingUpdate: {maxSurge: 50%, maxUnavailable: 0}}
  selector: {matchLabels: {app.kubernetes.io/name: engine}}
  template:
    metadata: {labels: {app.kubernetes.io/name: engine}}
    spec:
      restartPolicy: Always
      securityContext: {runAsNonRoot: true, seccompProfile: {type: RuntimeDefault}}
      containers:
        - name: engine
          image: sluice/engine:1
          env: [{name: LOG_LEVEL, value: INFO}]
          ports: [{name: http, containerPort: 8080, protocol: TCP}]
          readinessProbe: {httpGet: {port: http, path: /readyz}, periodSeconds: 5}
          resources: {requests: {cpu: 100m, memory: 256Mi}, limits: {memory: 1Gi}}
          volumeMounts: [{name: tmp, mountPath: /tmp}]
      volumes: [{name: tmp, emptyDir: {sizeLimit: 32Mi}}]
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: deny-all}
spec: {podSelector: {}, policyTypes: [Ingress, Egress], ingress: [{ports: [{port: http}]}]}
---
apiVersion: networking.k8s.io/v1
kind: Ingress
metadata: {name: sluice}
spec: {rules: [{http: {paths: [{path: /, pathType: Prefix, backend: {service: {name: web, port: {name: http}}}}]}}]}
---
apiVersion: batch/v1
kind: CronJob
metadata: {name: sweep}
spec:
  schedule: "* * * * *"
  concurrencyPolicy: Forbid
  jobTemplate: {spec: {template: {spec: {restartPolicy: Never, containers: [{name: sweep, image: sluice/engine:1}]}}}}
---
apiVersion: keda.sh/v1alpha1
kind: ScaledObject
metadata: {name: engine}
spec:
  scaleTargetRef: {name: engine}
  cooldownPeriod: 60
  triggers: [{type: rabbitmq, metadata: {queueName: tasks, value: "10"}, authenticationRef: {name: rabbitmq}}]
---
apiVersion: keda.sh/v1alpha1
kind: TriggerAuthentication
metadata: {name: rabbitmq}
spec: {secretTargetRef: [{parameter: host, name: keda, key: amqp}]}
---
apiVersion: http.keda.sh/v1beta1
kind: InterceptorRoute
metadata: {name: add-task}
spec:
  target: {service: add-task, portName: http}
  rules: [{hosts: ["*"], paths: [{value: /tasks/add}]}]
  scalingMetric: {concurrency: {targetValue: 16}}
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: sluice}
spec:
  parentRefs: [{name: gateway}]
  rules: [{matches: [{path: {type: PathPrefix, value: /tasks/add}}], backendRefs: [{name: add-task, port: 80}]}]
""")
}

POD = "spec.template.spec"
CONTAINER = f"{POD}.containers.0"

#: kind, path of a field, the value it is given (None leaves it empty), what the complaint says
FAULTS: list[tuple[str, str, Any, str]] = [
    ("Deployment", "spec.replica", 1, "spec.replica"),
    ("Deployment", f"{CONTAINER}.securityContex", {}, "securityContex"),
    ("Deployment", f"{CONTAINER}.securityContext", {"run_as_user": 1}, "run_as_user: there is no such field"),
    ("Deployment", f"{POD}.terminationGracePeriodSeconds", "150", "terminationGracePeriodSeconds"),
    ("Deployment", f"{POD}.automountServiceAccountToken", "false", "automountServiceAccountToken"),
    ("Deployment", f"{CONTAINER}.env.0.value", 10, "value"),
    ("Deployment", f"{CONTAINER}.env.0.name", "LOG LEVEL", "is no variable"),
    ("Deployment", "spec.selector", None, "selector"),
    ("Deployment", f"{CONTAINER}.resources.limits", None, "limits: is empty"),
    ("Deployment", f"{CONTAINER}.resources.limits.memory", "1 GB", "is no quantity"),
    ("Deployment", f"{CONTAINER}.resources.requests.cpu", "100 m", "is no quantity"),
    ("Deployment", f"{POD}.volumes.0.emptyDir.sizeLimit", "32MB", "is no quantity"),
    ("Deployment", f"{POD}.restartPolicy", "always", "is none of"),
    ("Deployment", f"{POD}.securityContext.seccompProfile.type", "Default", "is none of"),
    ("Deployment", f"{CONTAINER}.ports.0.protocol", "tcp", "is none of"),
    ("Deployment", f"{CONTAINER}.ports.0.containerPort", 80800, "is no port"),
    ("Deployment", f"{CONTAINER}.ports.0.name", "the-port-of-http", "is no name of a port"),
    ("Deployment", f"{CONTAINER}.readinessProbe.periodSeconds", 0, "less than 1"),
    ("Deployment", f"{CONTAINER}.readinessProbe.httpGet.port", [], "port"),
    ("Deployment", "spec.strategy.rollingUpdate.maxSurge", "half", "neither a number nor a percentage"),
    ("Deployment", "spec.strategy.type", "Rolling", "is none of"),
    ("Deployment", "metadata.labels", {"app.kubernetes.io/name": "the engine"}, "is no value of a label"),
    ("Deployment", "metadata.labels", {"-app": "engine"}, "is no key"),
    ("Deployment", "metadata.annotations", {"a key": "value"}, "is no key"),
    ("Deployment", "metadata.name", "add_task", "is no name"),
    ("Deployment", f"{CONTAINER}.name", "add_task", "is no name"),
    ("Deployment", "apiVersion", "extensions/v1beta1", "not known"),
    ("Deployment", "apiVersion", "v1", "not known"),
    ("CronJob", "apiVersion", "batch/v1beta1", "not known"),
    ("Ingress", "apiVersion", "networking/v1", "not known"),
    ("Ingress", "kind", "Ingres", "not known"),
    ("NetworkPolicy", "spec.policyTypes.0", "ingress", "is none of"),
    ("NetworkPolicy", "spec.ingress.0.from", None, "from: is empty"),
    ("Ingress", "spec.rules.0.http.paths.0.pathType", "prefix", "is none of"),
    ("Ingress", "spec.rules.0.http.paths.0.backend", {"serviceName": "web"}, "serviceName"),
    ("CronJob", "spec.schedule", "every minute", "is no schedule"),
    ("CronJob", "spec.jobTemplate.spec.template.spec.restart", "Never", "restart"),
    ("ScaledObject", "spec.cooldown", 60, "cooldown"),
    ("ScaledObject", "spec.cooldownPeriod", "60", "cooldownPeriod"),
    ("ScaledObject", "spec.triggers.0.metadata.value", 10, "value"),
    ("ScaledObject", "spec.triggers.0.authentication", {"name": "rabbitmq"}, "authentication"),
    ("TriggerAuthentication", "spec.secretTargetRef.0.secret", "keda", "secret"),
    ("InterceptorRoute", "spec.scalingMetric.concurrency.value", 1, "value"),
    ("HTTPRoute", "spec.rules.0.matches.0.path.type", "Prefix", "Prefix"),
    ("HTTPRoute", "spec.rules.0.backendRefs.0.service", "add-task", "service"),
]  # fmt: skip


@pytest.mark.parametrize("kind", SOUND)
def test_a_sound_object_is_taken(kind: str) -> None:
    assert list(problems_of(SOUND[kind])) == []


@pytest.mark.parametrize(("kind", "path", "value", "complaint"), FAULTS, ids=lambda value: str(value)[:50])
def test_a_fault_in_one_field_is_found_and_named(kind: str, path: str, value: Any, complaint: str) -> None:
    found = copy.deepcopy(SOUND[kind])
    *parents, last = path.split(".")
    inner: Any = found
    for part in parents:
        inner = inner[int(part)] if isinstance(inner, list) else inner.setdefault(part, {})
    inner[int(last) if isinstance(inner, list) else last] = value
    problems = list(problems_of(found))
    assert any(complaint in problem for problem in problems), problems


def test_a_missing_field_is_found() -> None:
    found = copy.deepcopy(SOUND["Deployment"])
    del found["spec"]["template"]["spec"]["containers"][0]["name"]
    del found["spec"]["selector"]
    problems = " ".join(problems_of(found))
    assert "spec.selector: Field required" in problems
    assert "containers.0.name: Field required" in problems
