#!/usr/bin/env python3
"""What stands in deploy/: manifests and the Kustomize component at one with the charts, the examples before a real server, the
policy of admission on Pods of all kinds, the image's Dockerfile, the unit of systemd, the compose file; and checkov on it all.

    deploy.py TOOLS KEYWARD
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import celpy
import examples
import manifests
from celpy.adapter import json_to_cel
from program import Program

ROOT = Path(__file__).resolve().parents[2]
HERE = Path(__file__).resolve().parent
MOST_EXPOSURE = 1.5

KEYWARD = {"name": "keyward"}
NATIVE = {"name": "keyward", "restartPolicy": "Always"}
APP = {"name": "app"}
# Pods, and whether they may start where only guarded ones may.
ADMITTED = [
    ({"containers": [APP]}, False),
    ({"containers": [APP, KEYWARD]}, True),
    ({"containers": [APP], "initContainers": [NATIVE]}, True),
    ({"containers": [APP], "initContainers": [{"name": "first"}, NATIVE]}, True),
    ({"containers": [APP], "initContainers": [KEYWARD]}, False),
    ({"containers": [APP], "initContainers": [{**NATIVE, "restartPolicy": "OnFailure"}]}, False),
    ({"containers": [APP], "initContainers": [{"name": "other", "restartPolicy": "Always"}]}, False),
    ({"containers": [{"name": "keyward-not"}]}, False),
]


def said(*words):
    """What a program complains of."""
    done = subprocess.run([str(word) for word in words], capture_output=True, text=True)
    return [f"{Path(words[0]).name}: {done.stdout}{done.stderr}"] if done.returncode else []


def admission_faults(objects):
    expression = next(item for item in objects if item["kind"] == "ValidatingAdmissionPolicy")["spec"]["validations"][0]["expression"]
    environment = celpy.Environment()
    program = environment.program(environment.compile(expression))
    for spec, admitted in ADMITTED:
        if bool(program.evaluate({"object": json_to_cel({"spec": spec})})) is not admitted:
            yield f"admission.yaml: {spec} is {'refused' if admitted else 'admitted'}"


def systemd_faults():
    unit = ROOT / "deploy/systemd/keyward.service"
    done = subprocess.run(["systemd-analyze", "security", "--offline=yes", unit], capture_output=True, text=True)
    lines = done.stdout.strip().splitlines() or [done.stderr]
    words = lines[-1].split()
    exposure = next((float(word) for word in words if word.replace(".", "").isdigit()), 10.0)
    if exposure > MOST_EXPOSURE:
        yield f"keyward.service: {lines[-1]}"
    with tempfile.TemporaryDirectory() as folder:
        # The program is not where the unit looks for it; any will do.
        path = Path(folder) / "keyward.service"
        path.write_text(unit.read_text().replace("/usr/local/bin/keyward", "/bin/true"))
        done = subprocess.run(["systemd-analyze", "verify", path], capture_output=True, text=True)
        if done.returncode or str(path.name) in done.stderr:
            yield f"keyward.service: {done.stderr}"


def manifest_faults(tools, program, folder):
    """Gateway, sidecar and examples."""
    overlay = subprocess.run([tools / "kubectl", "kustomize", ROOT / "deploy/kustomize/example"], capture_output=True, text=True)
    if overlay.returncode:
        yield overlay.stderr
        return
    gateway = (ROOT / "deploy/kubernetes/gateway.yaml").read_text()
    for name, text in (("gateway", gateway), ("sidecar", overlay.stdout)):
        (Path(folder) / f"{name}.yaml").write_text(text)
        objects = manifests.load(text)
        found = [
            *manifests.schema_faults(objects, manifests.VERSIONS),
            *manifests.restricted_faults(objects),
            *manifests.inner_faults(objects),
            *(fault for _, config in manifests.configs(objects) if (fault := program.check(config))),
        ]
        yield from (f"{name}: {fault}" for fault in found)
        if not list(manifests.configs(objects)):
            yield f"{name}: it has no config"
    admission = manifests.load((ROOT / "deploy/examples/admission.yaml").read_text())
    policy = manifests.load((ROOT / "deploy/examples/only-keyward.yaml").read_text())
    yield from manifests.schema_faults(admission, ["1.33", "1.37"])
    yield from manifests.schema_faults(policy, manifests.VERSIONS)
    yield from admission_faults(admission)


def main():
    tools, keyward = map(Path, sys.argv[1:])
    binaries = tools / "venv/bin"
    with tempfile.TemporaryDirectory() as folder:
        (rendered := Path(folder) / "rendered").mkdir()
        faults = [
            *said(sys.executable, ROOT / "deploy/generate.py", "--check", tools),
            *manifest_faults(tools, Program(keyward, folder), rendered),
            *examples.faults(keyward, folder),
            *systemd_faults(),
            *said(binaries / "hadolint", ROOT / "deploy/Dockerfile"),
            *said(binaries / "check-jsonschema", "--builtin-schema", "vendor.compose-spec", ROOT / "deploy/compose/compose.yaml"),
            *said(tools / "checkov/bin/checkov", "--config-file", HERE / "checkov.yaml", "-d", rendered, "--framework", "kubernetes"),
            *said(tools / "checkov/bin/checkov", "--config-file", HERE / "checkov.yaml", "-f", ROOT / "deploy/Dockerfile", "--framework", "dockerfile"),
        ]
    if faults:
        sys.exit("\n".join(faults))
    print(f"deploy: {len(examples.TABLE)} examples, {len(ADMITTED)} Pods at the door")


if __name__ == "__main__":
    main()
