"""What every manifest must be: of a kind and shape that the API server knows, restricted, and at one with itself."""

import json
import subprocess
from pathlib import Path

import kubernetes_validate
import yaml

VERSIONS = ["1.29", "1.33", "1.37"]
CUSTOM = {"cert-manager.io", "gateway.networking.k8s.io", "monitoring.coreos.com"}
HERE = Path(__file__).resolve().parent


def load(text):
    """The objects in a stream of YAML documents."""
    return [document for document in yaml.safe_load_all(text) if document]


def named(item):
    return f"{item.get('kind')} {item.get('metadata', {}).get('name')}"


def custom(item):
    return item.get("apiVersion", "").split("/")[0] in CUSTOM


def schema_faults(objects, versions):
    """Against the schemas of these versions of Kubernetes. `kubernetes-validate` itself lets kinds pass that it does not know."""
    for item in objects:
        if custom(item):
            continue
        for version in versions:
            try:
                kubernetes_validate.validate(item, version, strict=True)
            except kubernetes_validate.SchemaNotFoundError:
                yield f"{named(item)}: Kubernetes {version} knows no {item.get('apiVersion')} {item.get('kind')}"
            except kubernetes_validate.ValidationError as error:
                yield f"{named(item)} against {version}: {'.'.join(map(str, error.path))}: {error.message}"


def custom_faults(objects, tools, folder):
    """Custom resources against the models of their makers."""
    listed = [item for item in objects if custom(item)]
    if not listed:
        return ["there are no custom resources to check"]
    path = Path(folder) / "custom.json"
    path.write_text(json.dumps(listed))
    done = subprocess.run(["node", HERE / "crds.mjs", tools, path], capture_output=True, text=True)
    return [] if done.returncode == 0 else (done.stdout + done.stderr).splitlines()


def pods(objects):
    """Each Pod with its labels: bare, or as a template."""
    for item in objects:
        if item["kind"] == "Pod":
            yield item, item["metadata"].get("labels", {}), item["spec"]
        elif "template" in item.get("spec", {}) and "spec" in item["spec"]["template"]:
            template = item["spec"]["template"]
            yield item, template["metadata"].get("labels", {}), template["spec"]


def containers(spec):
    return spec.get("initContainers", []) + spec["containers"]


def restricted_faults(objects):
    """The Pod Security profile `restricted`, and a root file system that nobody writes."""
    for item, _, spec in pods(objects):
        who = named(item)
        pod = spec.get("securityContext", {})
        for name in ("hostNetwork", "hostPID", "hostIPC"):
            if spec.get(name):
                yield f"{who}: {name}"
        for volume in spec.get("volumes", []):
            kinds = set(volume) - {"name"}
            if not kinds <= {"configMap", "secret", "emptyDir", "projected", "persistentVolumeClaim", "csi", "ephemeral", "downwardAPI"}:
                yield f"{who}: volume {volume['name']} is {kinds}"
        if spec.get("automountServiceAccountToken") is not False:
            yield f"{who}: it gets a token of the API server"
        for container in containers(spec):
            context = {**pod, **container.get("securityContext", {})}
            wanted = {"runAsNonRoot": True, "allowPrivilegeEscalation": False, "readOnlyRootFilesystem": True}
            for name, value in wanted.items():
                if context.get(name) is not value:
                    yield f"{who}: {container['name']}: {name} is {context.get(name)}"
            if context.get("runAsUser") == 0:
                yield f"{who}: {container['name']}: runAsUser is 0"
            if context.get("seccompProfile", {}).get("type") not in ("RuntimeDefault", "Localhost"):
                yield f"{who}: {container['name']}: no seccompProfile"
            capabilities = context.get("capabilities", {})
            if "ALL" not in capabilities.get("drop", []) or set(capabilities.get("add", [])) - {"NET_BIND_SERVICE"}:
                yield f"{who}: {container['name']}: capabilities {capabilities}"
            if "memory" not in container.get("resources", {}).get("limits", {}):
                yield f"{who}: {container['name']}: no limit of memory"
            if any("hostPort" in port for port in container.get("ports", [])):
                yield f"{who}: {container['name']}: hostPort"


def inner_faults(objects):
    """What no schema looks at: names that lead nowhere."""
    claims = {item["metadata"]["name"] for item in objects if item["kind"] == "PersistentVolumeClaim"}
    identities = [(item["apiVersion"], item["kind"], item["metadata"]["name"]) for item in objects]
    yield from (f"there are two of {one}" for one in set(identities) if identities.count(one) > 1)
    for item, labels, spec in pods(objects):
        yield from pod_faults(named(item), spec)
        selector = item.get("spec", {}).get("selector", {}).get("matchLabels")
        if selector is not None and not selector.items() <= labels.items():
            yield f"{named(item)}: its selector does not match its own Pods"
        for volume in spec.get("volumes", []):
            claim = volume.get("persistentVolumeClaim", {}).get("claimName")
            if claim and claims and claim not in claims:
                yield f"{named(item)}: there is no claim {claim}"
    yield from selector_faults(objects)


def pod_faults(who, spec):
    names = [container["name"] for container in containers(spec)]
    ports = [port["name"] for container in containers(spec) for port in container.get("ports", [])]
    volumes = [volume["name"] for volume in spec.get("volumes", [])]
    for what, listed in (("container", names), ("port", ports), ("volume", volumes)):
        yield from (f"{who}: two {what}s {name}" for name in set(listed) if listed.count(name) > 1)
    yield from (f"{who}: the name of port {port} is too long" for port in ports if len(port) > 15)
    for container in containers(spec):
        own = {port["name"] for port in container.get("ports", [])}
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            port = container.get(probe, {}).get("httpGet", {}).get("port")
            if isinstance(port, str) and port not in own:
                yield f"{who}: {container['name']}: {probe} asks port {port}, which is none of its own"
        for mount in container.get("volumeMounts", []):
            if mount["name"] not in volumes:
                yield f"{who}: {container['name']}: there is no volume {mount['name']}"
            if "subPath" in mount:
                yield f"{who}: {container['name']}: {mount['name']} by subPath never changes"


def selector_faults(objects):
    """Services, policies, budgets and monitors select Pods, and name ports, that are there."""
    for item in objects:
        spec = item.get("spec", {})
        selector = {
            "Service": lambda: spec.get("selector"),
            "NetworkPolicy": lambda: spec["podSelector"].get("matchLabels"),
            "PodDisruptionBudget": lambda: spec["selector"].get("matchLabels"),
            "PodMonitor": lambda: spec["selector"].get("matchLabels"),
        }.get(item["kind"], lambda: None)()
        if selector is None:
            continue
        selected = [pod for _, labels, pod in pods(objects) if selector.items() <= labels.items()]
        if not selected:
            yield f"{named(item)}: it selects no Pod"
            continue
        ports = {port["name"]: port["containerPort"] for c in containers(selected[0]) for port in c.get("ports", [])}
        if item["kind"] == "Service":
            yield from (f"{named(item)}: no port {p['targetPort']}" for p in spec["ports"] if p["targetPort"] not in ports)
        if item["kind"] == "PodMonitor":
            yield from (f"{named(item)}: no port {e['port']}" for e in spec["podMetricsEndpoints"] if e["port"] not in ports)
        if item["kind"] == "NetworkPolicy":
            open_to = {p.get("port") for rule in spec.get("ingress", []) for p in rule.get("ports", [])}
            yield from (f"{named(item)}: port {port} is open" for port in open_to - set(ports.values()))
    services = {item["metadata"]["name"]: item for item in objects if item["kind"] == "Service"}
    for item in objects:
        if item["kind"] == "ServiceMonitor":
            wanted = item["spec"]["selector"]["matchLabels"].items()
            found = [s for s in services.values() if wanted <= s["metadata"]["labels"].items()]
            names = {port["name"] for service in found for port in service["spec"]["ports"]}
            yield from (f"{named(item)}: no Service has port {e['port']}" for e in item["spec"]["endpoints"] if e["port"] not in names)
        if item["kind"] == "HorizontalPodAutoscaler":
            target = item["spec"]["scaleTargetRef"]
            if (target["kind"], target["name"]) not in {(o["kind"], o["metadata"]["name"]) for o in objects}:
                yield f"{named(item)}: it scales nothing"
        if item["kind"] in ("Ingress", "HTTPRoute"):
            text = json.dumps(item["spec"])
            if not any(f'"{name}"' in text for name in services):
                yield f"{named(item)}: it leads to no Service"


def configs(objects):
    """Each config of Keyward in a ConfigMap."""
    for item in objects:
        if item["kind"] == "ConfigMap" and "keyward.yaml" in item.get("data", {}):
            yield named(item), item["data"]["keyward.yaml"]
