#!/usr/bin/env python3
"""The image and the sidecar of charts/example in a real Pod, by podman: beside an Icecast that nobody modified and that listens
on loopback, scraped by Prometheus, stopped while clients are at work.

    pod.py TOOLS IMAGE.tar KEYWARD

KEYWARD makes the keys. Needs root and namespaces; pod.sh sees to the rest. podman 4.3 has no native sidecars: this is the
plain container. Prints what was measured.
"""

import base64
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import manifests
import yaml
from charts import Helms

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 60
KEYS = 1000
CONTAINERS = """
[containers]
default_ulimits = ["nofile=1024:1024", "nproc=1000:1000"]
[engine]
runtime = "runc"
cgroup_manager = "cgroupfs"
events_logger = "file"
"""
ICECAST = {"@PORT@": "8000", "@ADMIN_PASSWORD@": "admin-password", "@SOURCE_PASSWORD@": "source-password"}

# Eight clients with connections that they keep, until there is no endpoint any more (/readyz fails) or their connection ends.
CLIENTS = r"""
import http.client, sys, threading, time, urllib.request
key, results, leaving = sys.argv[1], [], threading.Event()
def client():
    connection = None
    while not leaving.is_set():
        try:
            connection = connection or http.client.HTTPConnection("127.0.0.1", 8080, timeout=10)
            connection.request("GET", "/status.xsl", headers={"X-API-Key": key})
            answer = connection.getresponse(); body = answer.read()
            results.append(answer.status if body else "empty")
            if answer.will_close: connection = None
        except Exception as error:
            results.append(repr(error)); connection = None
def endpoints():
    while True:
        try: urllib.request.urlopen("http://127.0.0.1:9464/readyz", timeout=5).read()
        except Exception: break
        time.sleep(0.05)
    time.sleep(1); leaving.set()
threads = [threading.Thread(target=client) for _ in range(8)]
[t.start() for t in threads]
print("at work", flush=True)
endpoints(); [t.join() for t in threads]
bad = [r for r in results if r != 200]
print(len(results), len(bad), bad[:3])
"""


def until(what, holds):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if value := holds():
            return value
        time.sleep(0.02)
    raise SystemExit(f"pod: in vain: {what}")


class Podman:
    def __init__(self, folder):
        self.folder = Path(folder)
        (self.folder / "containers.conf").write_text(CONTAINERS)
        self.environment = {**os.environ, "CONTAINERS_CONF": str(self.folder / "containers.conf")}
        self.words = ["podman", "--root", self.folder / "store", "--runroot", self.folder / "run", "--storage-driver", "vfs"]

    def __call__(self, *words, check=True):
        done = subprocess.run([*self.words, *words], capture_output=True, text=True, env=self.environment)
        if check and done.returncode:
            raise SystemExit(f"podman {words}: {done.stderr}")
        return done.stdout.strip()

    def pid(self, container):
        return int(self("inspect", "-f", "{{.State.Pid}}", container) or 0)


class Site:
    """What the Pod has mounted."""

    def __init__(self, folder, keyward):
        self.folder, self.keyward = Path(folder), keyward
        self.run("init", "--dir", self.folder / "made")
        for name in ("config", "pepper", "data", "icecast"):
            (self.folder / name).mkdir()
        (self.folder / "made/keyward.pepper").rename(self.folder / "pepper/pepper")
        (self.folder / "made/keyward.db").rename(self.folder / "data/keyward.db")
        config = self.folder / "made/host.yaml"
        config.write_text(json.dumps({"version": 1, "keys": {"pepper": {"file": "../pepper/pepper"}, "shapes": [{"name": "old", "length": 20, "alphabet": "hex"}]}, "store": "sqlite:../data/keyward.db"}))
        keys = self.folder / "made/keys.csv"
        keys.write_text("value\n" + "".join(f"{number:020x}\n" for number in range(1, KEYS)))
        self.run("key", "import", "--input", keys, "--config", config)
        self.key = self.run("key", "create", "--name", "pod", "--config", config).strip()
        icecast = (ROOT / "tests/icecast/icecast.xml.in").read_text()
        for name, value in ICECAST.items():
            icecast = icecast.replace(name, value)
        (self.folder / "icecast/icecast.xml").write_text(icecast)
        for path in [self.folder, *self.folder.rglob("*")]:
            os.chmod(path, 0o755 if path.is_dir() else 0o644)
        for path in [self.folder / "data", *(self.folder / "data").iterdir(), *(self.folder / "pepper").iterdir()]:
            os.chown(path, 65532, 65532)
            os.chmod(path, 0o700 if path.is_dir() else 0o600)

    def run(self, *words):
        done = subprocess.run([self.keyward, *map(str, words)], capture_output=True, text=True)
        if done.returncode:
            raise SystemExit(f"keyward {words}: {done.stderr}")
        return done.stdout


def pod(rendered, site):
    """The Pod of the chart, with folders of this machine for what a cluster would mount, and Icecast as the server."""
    spec = next(spec for _, _, spec in manifests.pods(rendered))
    (_, config), = manifests.configs(rendered)
    (site.folder / "config/keyward.yaml").write_text(config)
    here = {"keyward-config": "config", "keyward-pepper": "pepper", "keyward-data": "data"}
    volumes = [{"name": volume["name"], "hostPath": {"path": str(site.folder / here[volume["name"]]), "type": "Directory"}} for volume in spec["volumes"]]
    system = [{"name": path.strip("/").replace("/", "-"), "hostPath": {"path": path, "type": "Directory"}} for path in ("/usr", "/lib", "/lib64", "/etc/icecast2") if Path(path).exists()]
    volumes += [*system, {"name": "icecast", "hostPath": {"path": str(site.folder / "icecast"), "type": "Directory"}}]
    app, keyward = spec["containers"]
    for container in (app, keyward):
        for name in ("startupProbe", "livenessProbe", "readinessProbe", "lifecycle", "ports"):
            container.pop(name, None)
    app |= {"image": "localhost/nothing:1", "command": ["/usr/bin/icecast2", "-c", "/config/icecast.xml"], "args": []}
    app["volumeMounts"] = [{"name": v["name"], "mountPath": v["hostPath"]["path"], "readOnly": True} for v in system]
    app["volumeMounts"].append({"name": "icecast", "mountPath": "/config", "readOnly": True})
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "kw"},
        "spec": {"restartPolicy": "Never", "containers": [app, keyward], "volumes": volumes, "securityContext": {"runAsNonRoot": True}},
    }


class Inside:
    """Programs of this machine in the network of the Pod."""

    def __init__(self, pid):
        self.words = ["nsenter", "-t", str(pid), "-n"]

    def start(self, *words):
        return subprocess.Popen([*self.words, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)

    def get(self, url, *options):
        done = subprocess.run([*self.words, "curl", "-s", "-m", "5", "-w", "\n%{http_code}", *options, url], capture_output=True, text=True)
        body, _, status = done.stdout.rpartition("\n")
        return int(status or 0), body


def kernel(pid):
    status = Path(f"/proc/{pid}/status").read_text()
    return {name: re.search(rf"^{name}:\s*(\S+)", status, re.M)[1] for name in ("Uid", "CapEff", "NoNewPrivs", "Seccomp", "VmRSS", "RssAnon")}


def scraped(inside, folder):
    """Whether a real Prometheus has it as a target that is up."""
    config = Path(folder) / "prometheus.yaml"
    config.write_text(json.dumps({
        "global": {"scrape_interval": "1s"},
        "rule_files": [],
        "scrape_configs": [{"job_name": "keyward", "static_configs": [{"targets": ["127.0.0.1:9464"]}]}],
    }))
    prometheus = inside.start("prometheus", f"--config.file={config}", f"--storage.tsdb.path={folder}/tsdb", "--web.listen-address=127.0.0.1:9090", "--log.level=error")
    try:
        query = "http://127.0.0.1:9090/api/v1/query?query=up%20%2B%20on%20(instance)%20keyward_build_info"
        until("Prometheus has the target up", lambda: '"2"' in inside.get(query)[1])
    finally:
        prometheus.terminate()
        prometheus.wait()


def exercise(podman, site, folder, started):
    pid = until("Keyward runs", lambda: podman.pid("kw-keyward"))
    inside = Inside(pid)
    until("it is ready", lambda: inside.get("http://127.0.0.1:9464/readyz")[0] == 200)
    print(f"pod: ready {time.monotonic() - started:.2f} s after `podman play`")
    door = "http://127.0.0.1:8080/status.xsl"
    until("the server behind answers", lambda: inside.get(door, "-H", f"X-API-Key: {site.key}")[0] == 200)
    assert "<html" in inside.get(door, "-u", f"{site.key}:")[1]
    status, body = inside.get(door, "-H", f"X-API-Key: {site.key[:-1]}")
    assert status == 401 and body.startswith("<?xml") and "Access Denied" in body, (status, body)
    assert inside.get(f"{door}?api_key=")[0] == 401
    assert inside.get("http://127.0.0.1:9464/app")[0] == 200, "kubelet's question for the server behind"
    seen = kernel(pid)
    wanted = {"Uid": "65532", "CapEff": "0" * 16, "NoNewPrivs": "1", "Seccomp": "2"}
    assert wanted.items() <= seen.items(), seen
    print(f"pod: {KEYS} keys, {int(seen['VmRSS']) / 1024:.1f} MiB resident, {int(seen['RssAnon']) / 1024:.1f} MiB of them its own")
    scraped(inside, folder)
    print("pod: Prometheus has the target up")
    clients = inside.start(sys.executable, "-c", CLIENTS, site.key)
    assert clients.stdout.readline() == "at work\n"
    time.sleep(1)  # so that they are
    podman("kill", "--signal", "TERM", "kw-keyward")
    requests, failed, which = clients.communicate(timeout=PATIENCE)[0].split(maxsplit=2)
    assert int(requests) > 100 and failed == "0", (requests, failed, which)
    until("it has ended", lambda: podman("inspect", "-f", "{{.State.Status}}", "kw-keyward") == "exited")
    assert podman("inspect", "-f", "{{.State.ExitCode}}", "kw-keyward") == "0"
    print(f"pod: {requests} requests around SIGTERM, 0 failed, exit code 0")


def main():
    tools, image, keyward = sys.argv[1:]
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        podman, site = Podman(folder), Site(Path(folder) / "site", Path(keyward).resolve())
        helms = Helms(tools, folder)
        values = ["keyward.sidecar.native=never", "keyward.image.repository=localhost/keyward", "keyward.keyStore.type=sqlite",
                  "keyward.keyStore.sqlite.existingClaim=keys", "keyward.config.deny.format=xml-cablecast", "keyward.config.ops.probes./app=/status.xsl",
                  "keyward.config.keys.shapes[0].name=old,keyward.config.keys.shapes[0].length=20,keyward.config.keys.shapes[0].alphabet=hex"]
        done = helms.render(helms.programs[0], "example", "1.33.0", *(f"--set={value}" for value in values))
        assert done.returncode == 0, done.stderr
        manifest = Path(folder) / "pod.yaml"
        manifest.write_text(yaml.safe_dump(pod(manifests.load(done.stdout), site)))
        podman("load", "-q", "-i", image)
        empty = Path(folder) / "empty.tar"
        subprocess.run(["tar", "-cf", empty, "-T", "/dev/null"], check=True)
        podman("import", "-q", empty, "localhost/nothing:1")
        try:
            started = time.monotonic()
            podman("play", "kube", "--network", "none", manifest)
            exercise(podman, site, folder, started)
        except BaseException:
            for container in ("kw-keyward", "kw-app"):
                done = subprocess.run([*podman.words, "logs", container], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=podman.environment)
                print(f"{container}: {done.stdout[-2000:]}", file=sys.stderr)
            raise
        finally:
            podman("play", "kube", "--down", manifest, check=False)


if __name__ == "__main__":
    main()
