#!/usr/bin/env python3
"""The charts: every case of `ci/` renders alike with Helm 3 and 4, into manifests that Kubernetes and the operators know and
that meet the restricted profile, with configs that the program accepts; and what is wrong is refused, with its path.

    charts.py TOOLS KEYWARD
"""

import copy
import itertools
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import manifests
from program import Program

ROOT = Path(__file__).resolve().parents[2]
APIS = ["monitoring.coreos.com/v1", "gateway.networking.k8s.io/v1"]
LEAST_CASES = {"keyward": 15, "example": 4}

GIVEN = {
    "image.repository": "r.example/k",
    "upstream": "http://legacy:8000",
    "pepper.existingSecret": "p",
    "keyStore.secret.existingSecret": "r",
}

# Values that are refused, and what the message must name.
REFUSED = [
    ("image.repository=", "image.repository"),
    ("pepper.existingSecret=", "pepper.existingSecret"),
    ("keyStore.secret.existingSecret=", "keyStore.secret.existingSecret"),
    ("upstream=", "upstream"),
    ("upstream=legacy:8000", "upstream"),
    ("upstreem=x", "upstreem"),
    ("image.tagg=1", "tagg"),
    ("image.pullPolicy=Sometimes", "pullPolicy"),
    ("replicaCount=many", "replicaCount"),
    ("replicaCount=-1", "replicaCount"),
    ("keyStore.type=redis", "type"),
    ("keyStore.type=postgres", "keyStore.postgres.existingSecret"),
    ("keyStore.type=sqlite", "replicaCount"),
    ("keyStore.type=sqlite,replicaCount=1,persistence.enabled=false", "keyStore.sqlite.existingClaim"),
    ("keyStore.type=sqlite,replicaCount=1,autoscaling.enabled=true", "autoscaling.enabled"),
    ("config.version=1", "config.version"),
    ("config.store=sqlite:x", "config.store"),
    ("config.proxy.listen=1", "listen"),
    ("config.proxy.upstream=http://a:1", "config.proxy.upstream"),
    ("config.proxy.tls.key=a", "config.proxy.tls"),
    ("config.proxy.timeouts.drain=1s", "config.proxy.timeouts.drain"),
    ("config.keys.pepper.file=a", "config.keys.pepper"),
    ("config.ops.listen=127.0.0.1:1", "config.ops.listen"),
    ("config.prox.workers=1", "prox"),
    ("config.proxy.workerz=1", "workerz"),
    ("config.proxy.workers=none", "workers"),
    ("config.log.access=some", "access"),
    ("config.routes[0].path=/a,config.routes[0].auth=maybe", "auth"),
    ("config.routes[0].paths=/a", "paths"),
    ("existingConfigMap=a,config.log.access=all", "config"),
    ("tls.clientCa=true", "tls.clientCa"),
    ("ports.proxy=80", "proxy"),
    ("ports.ops=8080", "ports.ops"),
    ("shutdown.drainSeconds=25", "terminationGracePeriodSeconds"),
    ("podMonitor.enabled=true,serviceMonitor.enabled=true", "serviceMonitor.enabled"),
    ("ingress.enabled=true", "ingress.hosts"),
    ("httpRoute.enabled=true", "httpRoute.parentRefs"),
    ("autoscaling.enabled=true,autoscaling.minReplicas=11", "autoscaling.minReplicas"),
    ("autoscaling.enabled=true,resources.requests=null", "resources.requests.cpu"),
    ("service.type=ExternalName", "type"),
    ("persistence.size=big", "size"),
    ("podDisruptionBudget.maxUnavailable=most", "maxUnavailable"),
    ("extraEnv[0].value=a", "extraEnv"),
    ("sidecar.native=never", "sidecar"),
]
REFUSED_OF_SIDECARS = [
    ("keyward.sidecar.native=maybe", "native"),
    ("keyward.secretMode=511", "secretMode"),
    ("keyward.pepper.existingSecret=", "pepper.existingSecret"),
    ("keyward.config.store=file:a", "config.store"),
    ("keyward.config.ops.probs.a=/b", "probs"),
    ("keyward.replicaCount=2", "replicaCount"),
]

# Changes of a good manifest, each of which must be noticed: a check that finds nothing wrong anywhere would be none.
SPOILT = [
    ("a misspelt field", ["spec", "template", "spec", "containers", 0, "imagePullPolicies"], "Always"),
    ("a wrong type", ["spec", "replicas"], "two"),
    ("an API that is gone", ["apiVersion"], "extensions/v1beta1"),
    ("root", ["spec", "template", "spec", "containers", 0, "securityContext", "runAsNonRoot"], False),
    ("more rights", ["spec", "template", "spec", "containers", 0, "securityContext", "capabilities"], {"drop": ["KILL"]}),
    ("any system call", ["spec", "template", "spec", "containers", 0, "securityContext", "seccompProfile"], {"type": "Unconfined"}),
    ("a token", ["spec", "template", "spec", "automountServiceAccountToken"], True),
    ("a file of the host's", ["spec", "template", "spec", "volumes", 0], {"name": "keyward-config", "hostPath": {"path": "/"}}),
    ("a missing volume", ["spec", "template", "spec", "volumes"], []),
    ("a port of nobody's", ["spec", "template", "spec", "containers", 0, "ports", 0, "name"], "other"),
    ("Pods of somebody else", ["spec", "template", "metadata", "labels"], {"app": "x"}),
]


class Helms:
    """Both Helms, and a copy of the charts with their dependencies in place."""

    def __init__(self, tools, folder):
        self.programs = [Path(tools) / "helm", Path(tools) / "helm3"]
        self.charts = Path(folder) / "charts"
        shutil.copytree(ROOT / "charts", self.charts, ignore=shutil.ignore_patterns("*.tgz", "Chart.lock"))
        for chart in LEAST_CASES:
            self.run(self.programs[0], "dependency", "build", self.charts / chart, check=True)

    @staticmethod
    def run(program, *words, check=False):
        done = subprocess.run([program, *map(str, words)], capture_output=True, text=True)
        if check and done.returncode:
            raise SystemExit(f"{program} {words}: {done.stderr}")
        return done

    def render(self, program, chart, version, *flags):
        apis = itertools.chain(*(["--api-versions", api] for api in APIS))
        return self.run(program, "template", "rel", self.charts / chart, "--namespace", "shop", "--kube-version", version, *apis, *flags)


def case_faults(helms, program, chart, case):
    """Everything that is wrong with one case, and its objects."""
    flags, everything = ["-f", case], []
    faults = []
    for helm in helms.programs:
        lint = helms.run(helm, "lint", "--strict", "--kube-version", "1.33.0", helms.charts / chart, *flags)
        if lint.returncode:
            faults.append(f"{helm.name} lint: {lint.stdout}{lint.stderr}")
    for version in ["1.28", *manifests.VERSIONS]:
        four, three = (helms.render(helm, chart, f"{version}.0", *flags) for helm in helms.programs)
        if four.returncode or three.returncode:
            faults.append(f"{version}: {four.stderr}{three.stderr}")
            continue
        objects = manifests.load(four.stdout)
        if objects != manifests.load(three.stdout):
            faults.append(f"{version}: Helm 3 and 4 render it differently")
        faults += object_faults(objects, [version])
        everything = objects
    faults += [f"{name}: {said}" for name, config in manifests.configs(everything) if (said := program.check(config))]
    return faults, everything


def object_faults(objects, versions):
    return [
        *manifests.schema_faults(objects, versions),
        *manifests.restricted_faults(objects),
        *manifests.inner_faults(objects),
    ]


def refusals(helms):
    """What ought to be refused and is not, or without a word of where."""
    given = [f"--set={','.join(f'{name}={value}' for name, value in GIVEN.items())}"]
    jobs = [("keyward", given, *row) for row in REFUSED] + [("example", [], *row) for row in REFUSED_OF_SIDECARS]
    for chart, flags, values, path in jobs:
        for helm in helms.programs:
            done = helms.render(helm, chart, "1.33.0", *flags, "--set", values)
            said = done.stderr.replace("'", ".").replace("/", ".")
            if done.returncode == 0:
                yield f"{chart} with {values}: {helm.name} lets it pass"
            elif path not in said:
                yield f"{chart} with {values}: {helm.name} does not name {path}: {done.stderr}"


def unnoticed(objects):
    """Changes for the worse that the checks do not see."""
    for what, path, value in SPOILT:
        spoilt = copy.deepcopy(objects)
        place = next(item for item in spoilt if item["kind"] == "Deployment")
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value
        if not object_faults(spoilt, ["1.33"]):
            yield f"nobody notices {what}"


def sidecar_faults(helms):
    """A sidecar is native from 1.29 on, and comes before the server there."""
    for version, flags, native in [("1.28.0", [], False), ("1.29.0", [], True), ("1.29.5-gke.1", [], True), ("1.37.0", ["--set", "keyward.sidecar.native=never"], False)]:
        done = helms.render(helms.programs[0], "example", version, *flags)
        spec = next(spec for _, _, spec in manifests.pods(manifests.load(done.stdout)))
        before = [c["name"] for c in spec.get("initContainers") or [] if c.get("restartPolicy") == "Always"]
        beside = [c["name"] for c in spec["containers"]]
        if (before, beside) != ((["keyward"], ["app"]) if native else ([], ["app", "keyward"])):
            yield f"a sidecar for {version} {flags}: {before} {beside}"


def main():
    tools, binary = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        helms, program = Helms(tools, folder), Program(binary, folder)
        faults, rendered = [], []
        cases = [(chart, case) for chart in LEAST_CASES for case in sorted((ROOT / "charts" / chart / "ci").glob("*-values.yaml"))]
        for chart, least in LEAST_CASES.items():
            if sum(name == chart for name, _ in cases) < least:
                faults.append(f"charts/{chart}/ci: fewer than {least} cases")
        with ThreadPoolExecutor(2) as pool:
            done = pool.map(lambda job: case_faults(helms, program, *job), cases)
            for (chart, case), (wrong, objects) in zip(cases, done):
                faults += [f"{chart} {case.name}: {fault}" for fault in wrong]
                rendered.append(objects)
        faults += manifests.custom_faults(list(itertools.chain(*rendered)), tools, folder)
        faults += [*refusals(helms), *sidecar_faults(helms), *unnoticed(rendered[0])]
    kinds = {item["kind"] for item in itertools.chain(*rendered)}
    if faults:
        sys.exit("\n".join(faults))
    print(f"charts: {len(cases)} cases, {len(REFUSED) + len(REFUSED_OF_SIDECARS)} refusals, {len(SPOILT)} spoilt, {len(kinds)} kinds")


if __name__ == "__main__":
    main()
