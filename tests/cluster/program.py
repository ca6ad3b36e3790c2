"""The real program, asked what it thinks of a config that is meant for a container."""

import itertools
import json
import subprocess
from pathlib import Path


class Program:
    """`keyward`, and a folder that stands for what a container has mounted."""

    def __init__(self, binary, folder):
        self.binary = Path(binary).resolve()
        self.root = Path(folder) / "mounted"
        self.numbers = itertools.count()
        self.mount()

    def mount(self):
        etc = self.root / "etc/keyward"
        for name in ("config", "pepper", "records", "tls", "upstream", "postgres", "collector"):
            (etc / name).mkdir(parents=True)
        (self.root / "var/lib/keyward").mkdir(parents=True)
        (etc / "collector/token").write_text("Bearer token\n")
        pepper = etc / "pepper/pepper"
        pepper.write_text("5a" * 32)
        pepper.chmod(0o600)
        certificate = [etc / "tls/tls.crt", etc / "tls/tls.key"]
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
             "/CN=keyward", "-addext", "subjectAltName=DNS:keyward", "-out", certificate[0], "-keyout", certificate[1]],
            check=True, capture_output=True,
        )
        for copy in (etc / "tls/ca.crt", etc / "upstream/ca.crt", etc / "postgres/ca.crt"):
            copy.write_bytes(certificate[0].read_bytes())
        certificate[1].chmod(0o600)
        starter = "{version: 1, keys: {pepper: {file: ../pepper/pepper}}, store: 'sqlite:/nowhere'}"
        (etc / "config/starter.yaml").write_text(starter)
        record = self.run("key", "create", "--record", "--name", "first", "--output", "json", "--config", etc / "config/starter.yaml")
        assert record.returncode == 0, record.stderr
        (etc / "records/records.json").write_text(record.stdout)
        strip_value(etc / "records/records.json")
        self.run("init", "--dir", self.root / "made", "--store", f"sqlite:{self.root}/var/lib/keyward/keyward.db")
        # The database was made with a pepper of its own; the config is given that one's.
        (self.root / "made/keyward.pepper").replace(self.root / "var/lib/keyward/pepper")

    def run(self, *words, **environment):
        env = {"PATH": "/usr/bin:/bin", **environment}
        return subprocess.run([self.binary, *map(str, words)], capture_output=True, text=True, env=env)

    def check(self, config):
        """What is wrong with a config, in its words; nothing if it would serve."""
        config = config.replace("/etc/keyward", f"{self.root}/etc/keyward").replace("/var/lib/keyward", f"{self.root}/var/lib/keyward")
        if "sqlite:" in config:
            config = config.replace(f"{self.root}/etc/keyward/pepper/pepper", f"{self.root}/var/lib/keyward/pepper")
        path = self.root / f"etc/keyward/config/keyward-{next(self.numbers)}.yaml"
        path.write_text(config)
        elsewhere = {} if "\nstore:" in "\n" + config else {"KEYWARD_STORE": f"file:{self.root}/etc/keyward/records"}
        done = self.run("check", "--config", path, **elsewhere)
        return "" if done.returncode == 0 else done.stderr or f"exit code {done.returncode}"


def strip_value(path):
    """What goes into a Secret: the records, without the key itself."""
    whole = json.loads(path.read_text())
    path.write_text(json.dumps({name: whole[name] for name in ("pepper_check", "records")}))
