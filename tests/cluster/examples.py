"""The configs of deploy/examples, each before a server, with what its clients send."""

import base64
import contextlib
import http.client
import http.server
import subprocess
import threading
import time
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "deploy/examples"

# For each config: scopes, keys to import, and requests: method, target, headers, status, what the answer begins with or the server
# behind was asked for.
TABLE = {
    "cablecast": (
        [],
        "id,name,value\nexample,newsroom,7e14204fcce1e00152b4\n",
        [
            ("GET", "/xml/schedule", {}, 200, "/xml/schedule"),
            ("GET", "/xml/software_version?api_key=7e14204fcce1e00152b4", {}, 200, "/xml/software_version"),
            ("GET", "/content_api/new?program=a&api_key=7e14204fcce1e00152b4", {}, 200, "/content_api/new?program=a&username=newsroom"),
            ("GET", "/xml/software_version", {}, 401, '<?xml version="1.0" encoding="utf-8" ?>\nAccess Denied'),
            ("GET", "/xml/software_version?api_key=0000000000000000000f", {}, 401, "<?xml"),
        ],
    ),
    "cognitive3d": (
        ["organization:acme", "organization:other"],
        "id,name,value,scope,access\nexample,acme,abcdef1234567890,organization:acme,ro\n",
        [
            ("GET", "/v0/organizations/acme/projects", {"Authorization": "APIKEY:ORGANIZATION abcdef1234567890"}, 200, "/v0/organizations/acme/projects"),
            ("POST", "/v0/datasets/sessions/query", {"Authorization": "APIKEY:ORGANIZATION abcdef1234567890"}, 200, "/v0/datasets"),
            ("DELETE", "/v0/organizations/acme/projects", {"Authorization": "APIKEY:ORGANIZATION abcdef1234567890"}, 403, '{"errors":['),
            ("GET", "/v0/organizations/other/projects", {"Authorization": "APIKEY:ORGANIZATION abcdef1234567890"}, 403, '{"errors":['),
            ("GET", "/v0/anything", {"Authorization": "Bearer abcdef1234567890"}, 401, '{"errors":['),
        ],
    ),
    "vidbeo": (
        [],
        None,  # a new read-only key
        [
            ("GET", "/v2/videos", {"Authorization": "Bearer KEY"}, 200, "/v2/videos"),
            ("POST", "/v2/videos", {"Authorization": "Bearer KEY"}, 403, '{"errors":['),
            ("GET", "/v2/public/a", {}, 200, "/v2/public/a"),
            ("GET", "/v2/videos", {"X-API-Key": "KEY"}, 401, '{"errors":['),
        ],
    ),
    "apivideo": (
        [],
        "id,name,value\nexample,studio,9VxMaPgsaFg7EBqmuspSzF7\n",
        [
            ("GET", "/videos", {"Authorization": "Bearer 9VxMaPgsaFg7EBqmuspSzF7"}, 200, "/videos"),
            ("GET", "/videos", {"Authorization": "Basic " + base64.b64encode(b"9VxMaPgsaFg7EBqmuspSzF7:").decode()}, 200, "/videos"),
            ("POST", "/upload?token=to1", {}, 200, "/upload?token=to1"),
            ("GET", "/videos", {"Authorization": "Bearer 9VxMaPgsaFg7EBqmuspSzF7", "Host": "sandbox.example.com"}, 403, "{"),
            ("GET", "/videos", {}, 401, "{"),
        ],
    ),
}


class Echo(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked for."""

    protocol_version = "HTTP/1.1"

    def do(self):
        body = self.path.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = do

    def log_message(self, *_):
        pass


def run(keyward, folder, *words):
    done = subprocess.run([keyward, *words], capture_output=True, text=True, cwd=folder, env={})
    if done.returncode:
        raise SystemExit(f"keyward {words}: {done.stderr}")
    return done.stdout.strip()


def until_ready(ops):
    """Before it has read its store it answers 503."""
    end = time.monotonic() + 30
    while time.monotonic() < end:
        with contextlib.closing(http.client.HTTPConnection(ops, timeout=10)) as connection:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return
        time.sleep(0.02)
    raise SystemExit("it does not get ready")


@contextlib.contextmanager
def serving(keyward, folder, upstream):
    """Keyward with the config of a folder; gives its address."""
    words = ["serve", "--config", "keyward.yaml", "--set", f"proxy.upstream=http://127.0.0.1:{upstream}", "--set", "proxy.listen=127.0.0.1:0", "--set", "ops.listen=127.0.0.1:0"]
    with subprocess.Popen([keyward, *words], cwd=folder, env={}, stderr=subprocess.PIPE, text=True) as program:
        try:
            for line in program.stderr:
                if '"message":"serving"' in line:
                    break
            else:
                raise SystemExit("it does not serve")
            threading.Thread(target=program.stderr.read, daemon=True).start()
            addresses = yaml.safe_load(line)
            until_ready(addresses["ops"])
            yield addresses["proxy"]
        finally:
            program.terminate()


def faults(keyward, folder):
    keyward = Path(keyward).resolve()
    for path in sorted(set(EXAMPLES.glob("*.yaml"))):
        if "proxy:" in path.read_text() and path.stem not in TABLE:
            yield f"{path.name}: nothing tries it"
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, (scopes, keys, requests) in TABLE.items():
        site = Path(folder) / name
        site.mkdir()
        (site / "keyward.yaml").write_text((EXAMPLES / f"{name}.yaml").read_text())
        (site / "keyward.pepper").write_text("5a" * 32)
        (site / "keyward.pepper").chmod(0o600)
        run(keyward, site, "init")
        for scope in scopes:
            run(keyward, site, "scope", "create", scope)
        key = ""
        if keys is None:
            key = run(keyward, site, "key", "create", "--name", "fetch", "--read-only")
        else:
            (site / "keys.csv").write_text(keys)
            run(keyward, site, "key", "import", "--input", "keys.csv")
        run(keyward, site, "check")
        with serving(keyward, site, server.server_port) as address:
            for method, target, headers, status, begins in requests:
                connection = http.client.HTTPConnection(address, timeout=10)
                connection.request(method, target, headers={name: value.replace("KEY", key) if key else value for name, value in headers.items()})
                answer = connection.getresponse()
                body = answer.read().decode()
                connection.close()
                if answer.status != status or not body.startswith(begins):
                    yield f"{name}: {method} {target}: {answer.status} {body[:200]!r}"
    server.shutdown()
