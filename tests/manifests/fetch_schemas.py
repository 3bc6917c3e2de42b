"""`python -m tests.manifests.fetch_schemas`: copies the schemas of what is not Kubernetes' own into schemas/, which is
committed. They are in the Go modules of their projects, all under the Apache licence 2.0; `go` brings them.

Of each definition only the schema of one version is kept, without its texts. An API server drops a field that such a
schema does not name; here the schema refuses it.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import yaml

from tests.servers.go import go_command

SCHEMAS = Path(__file__).with_name("schemas")

KEDA = "github.com/kedacore/keda/v2@v2.20.2"
HTTP_ADD_ON = "github.com/kedacore/http-add-on@v0.15.0"
GATEWAY_API = "sigs.k8s.io/gateway-api@v1.6.1"

#: Where each kind is defined, by "<apiVersion> <kind>".
DEFINITIONS = {
    "keda.sh/v1alpha1 ScaledObject": (KEDA, "config/crd/bases/keda.sh_scaledobjects.yaml"),
    "keda.sh/v1alpha1 TriggerAuthentication": (KEDA, "config/crd/bases/keda.sh_triggerauthentications.yaml"),
    "http.keda.sh/v1beta1 InterceptorRoute": (HTTP_ADD_ON, "config/crd/bases/http.keda.sh_interceptorroutes.yaml"),
    "gateway.networking.k8s.io/v1 HTTPRoute": (
        GATEWAY_API,
        "config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",
    ),
}

#: What KEDA says of each scaler's parameters.
SCALERS = (KEDA, "schema/generated/scalers-schema.json")


def path_of(api_version: str, kind: str) -> Path:
    """Where the schema of a kind is kept."""
    group, version = api_version.split("/")
    return SCHEMAS / f"{group}_{version}_{kind}.json"


def main() -> None:
    shutil.rmtree(SCHEMAS, ignore_errors=True)
    SCHEMAS.mkdir()
    for name, (module, file) in DEFINITIONS.items():
        api_version, kind = name.split()
        definition = yaml.safe_load((_downloaded(module) / file).read_text())
        version = api_version.split("/")[1]
        [schema] = [
            each["schema"]["openAPIV3Schema"] for each in definition["spec"]["versions"] if each["name"] == version
        ]
        _write(path_of(api_version, kind), module, file, closed(schema))
    module, file = SCALERS
    scalers = json.loads((_downloaded(module) / file).read_text())["scalers"]
    [rabbitmq] = [scaler for scaler in scalers if scaler["type"] == "rabbitmq"]
    _write(SCHEMAS / "rabbitmq-scaler.json", module, file, rabbitmq)


def closed(schema: Any) -> Any:
    """A structural schema as JSON Schema: without texts, and objects have no fields but those that it names."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    kept: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "properties":  # the keys are names here
            kept[key] = {name: closed(each) for name, each in value.items()}
        elif key not in ("description", "default", "x-kubernetes-validations"):
            kept[key] = closed(value)
    if "properties" in kept and kept.get("type") == "object" and "additionalProperties" not in kept:
        kept["additionalProperties"] = bool(kept.get("x-kubernetes-preserve-unknown-fields"))
    return kept


def _downloaded(module: str) -> Path:
    told = subprocess.run(
        [go_command() or "go", "mod", "download", "-json", module], capture_output=True, text=True, check=True
    )
    return Path(json.loads(told.stdout)["Dir"])


def _write(path: Path, module: str, file: str, schema: Any) -> None:
    comment = f"{file} of {module}, Apache-2.0, shortened by fetch_schemas.py"
    path.write_text(json.dumps({"$comment": comment, **schema}, separators=(",", ":"), sort_keys=True) + "\n")


if __name__ == "__main__":
    main()
