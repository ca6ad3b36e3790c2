#!/usr/bin/env python3
"""Writes the plain manifests and the Kustomize component from the charts; with --check it only says what is out of date.

    deploy/generate.py [--check] TOOLS

Needs PyYAML; TOOLS is the folder that tests/cluster/setup.sh prints.
"""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[1]
HEAD = "# Made by deploy/generate.py from {}. Put your own image, upstream and names of Secrets.\n"
GATEWAY = ["image.repository=registry.example/keyward", "upstream=http://legacy:8000", "pepper.existingSecret=keyward-pepper", "keyStore.secret.existingSecret=keyward-records"]
GUARDED = {"keyward/guarded": "true"}


class Lists(yaml.SafeDumper):
    """Lists stand in from the key that they belong to."""

    def increase_indent(self, flow=False, indentless=False):
        return super().increase_indent(flow, False)


def text_of(dumper, text):
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None)


Lists.add_representer(str, text_of)


def dump(head, objects):
    return head + "---\n".join(yaml.dump(item, Dumper=Lists, sort_keys=False, width=120) for item in objects)


def render(helm, charts, chart, release, *values):
    subprocess.run([helm, "dependency", "build", charts / chart], check=True, capture_output=True)
    words = [helm, "template", release, charts / chart, "--kube-version", "1.33.0", *(f"--set={value}" for value in values)]
    text = subprocess.run(words, check=True, capture_output=True, text=True).stdout
    return [plain(item) for item in yaml.safe_load_all(text) if item]


def plain(item):
    """An object that Helm has nothing to do with."""
    labels = item["metadata"].get("labels", {})
    for name in ("app.kubernetes.io/managed-by", "helm.sh/chart"):
        labels.pop(name, None)
    template = item.get("spec", {}).get("template", {}).get("metadata", {})
    for name in ("app.kubernetes.io/managed-by", "helm.sh/chart"):
        template.get("labels", {}).pop(name, None)
    # The hash of a config that is changed by hand says nothing.
    template.get("annotations", {}).pop("keyward/config", None)
    item["metadata"].pop("namespace", None)
    return item


def component(objects):
    """The parts of the example that are the sidecar's: a patch for Deployments, and the objects beside it."""
    spec = next(item for item in objects if item["kind"] == "Deployment")["spec"]["template"]["spec"]
    patch = {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": "any"},
        "spec": {"template": {"metadata": {"labels": GUARDED}, "spec": {"initContainers": spec["initContainers"], "volumes": spec["volumes"]}}},
    }
    config = next(item for item in objects if item["kind"] == "ConfigMap")
    policy = next(item for item in objects if item["kind"] == "NetworkPolicy")
    for item in (config, policy):
        item["metadata"] = {"name": "keyward"}
    policy["spec"]["podSelector"]["matchLabels"] = GUARDED
    next(volume for volume in patch["spec"]["template"]["spec"]["volumes"] if "configMap" in volume)["configMap"]["name"] = "keyward"
    kustomization = {
        "apiVersion": "kustomize.config.k8s.io/v1alpha1",
        "kind": "Component",
        "resources": ["config.yaml", "networkpolicy.yaml"],
        "patches": [{"path": "sidecar.yaml", "target": {"kind": "Deployment", "labelSelector": "keyward/guarded=true"}}],
    }
    head = HEAD.format("charts/example")
    note = head + "# Deployments labelled keyward/guarded=true get Keyward as a native sidecar: Kubernetes 1.29 or later.\n"
    return {"kustomization.yaml": dump(note, [kustomization]), "sidecar.yaml": dump(head, [patch]), "config.yaml": dump(head, [config]), "networkpolicy.yaml": dump(head, [policy])}


def main():
    check = "--check" in sys.argv
    helm = Path([word for word in sys.argv[1:] if word != "--check"][0]) / "helm"
    with tempfile.TemporaryDirectory() as folder:
        charts = Path(folder) / "charts"
        shutil.copytree(ROOT / "charts", charts, ignore=shutil.ignore_patterns("*.tgz", "Chart.lock"))
        gateway = render(helm, charts, "keyward", "keyward", *GATEWAY)
        sidecar = render(helm, charts, "example", "legacy")
    files = {ROOT / "deploy/kubernetes/gateway.yaml": dump(HEAD.format("charts/keyward"), gateway)}
    files |= {ROOT / "deploy/kustomize/sidecar" / name: text for name, text in component(sidecar).items()}
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if not check:
            path.write_text(files[path])
        print(f"{'out of date' if check else 'written'}: {path.relative_to(ROOT)}")
    if check and stale:
        sys.exit("run `make generate` and commit what it writes")


if __name__ == "__main__":
    main()
