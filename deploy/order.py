#!/usr/bin/env python3
"""Writes deploy/order.ld: which functions of the program stand together, so that few of its pages are in memory.

    deploy/order.py PROGRAM        PROGRAM has symbols: cargo build --profile profiling. Needs valgrind and binutils.

The kernel maps sixteen pages around each that is touched. Functions that a process at rest has used are 3 MB of eleven, but lie
all over it. The linker is told to put them one behind the other, by the beginnings of their names without the hashes: those
outlive most changes, and a name that there is no longer does no harm. What runs is watched: a start, a scrape, some requests.
"""

import http.server
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import urllib.error
import urllib.request
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
# A beginning is short enough when so much of what it fits has been used.
ENOUGH = 0.9
# Functions of one name are taken together, unless more bytes than this of them have not been used.
MOST_UNUSED = 25_000
KEY = "00000000000000000007"
CONFIG = """version: 1
proxy: {{ listen: 127.0.0.1:0, upstream: "http://127.0.0.1:{port}", workers: 2 }}
keys: {{ pepper: {{ file: keyward.pepper }}, shapes: [{{ name: hex, length: 20, alphabet: hex }}] }}
store: sqlite:keyward.db
admin: {{ listen: 127.0.0.1:0 }}
ops: {{ listen: 127.0.0.1:0 }}
log: {{ format: json }}
"""


class Upstream(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        self.send_response(200)
        self.send_header("Content-Length", "4")
        self.end_headers()
        self.wfile.write(b"<a/>")

    def log_message(self, *_):
        pass


def ask(url, **headers):
    try:
        urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=60).read()
    except urllib.error.HTTPError as refused:
        refused.read()


def used(program, folder):
    """The names of all functions that run."""
    upstream = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Upstream)
    threading.Thread(target=upstream.serve_forever, daemon=True).start()
    config = folder / "keyward.yaml"
    config.write_text(CONFIG.format(port=upstream.server_port))
    pepper = folder / "keyward.pepper"
    pepper.write_text("5a" * 32)
    pepper.chmod(0o600)
    (folder / "keys.csv").write_text("id,value\n" + "".join(f"k{n},{n:020x}\n" for n in range(1000)))
    quiet = {"cwd": folder, "check": True, "stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    subprocess.run([program, "init", "--config", config], **quiet)
    subprocess.run([program, "key", "import", "--config", config, "--input", "keys.csv"], **quiet)
    watched = ["valgrind", "--tool=callgrind", "--demangle=no", f"--callgrind-out-file={folder}/trace"]
    with open(folder / "log", "w") as log:
        process = subprocess.Popen([*watched, program, "serve", "--config", config], cwd=folder, stderr=log)
    try:
        addresses = {}
        while not {"proxy", "ops"} <= addresses.keys():
            time.sleep(0.2)
            assert process.poll() is None, (folder / "log").read_text()
            addresses = dict(re.findall(r'"(proxy|ops)":"([\d.:]+)"', (folder / "log").read_text()))
        time.sleep(10)  # at rest, as a sidecar mostly is
        for path in ["/metrics", "/readyz", "/livez"]:
            ask(f"http://{addresses['ops']}{path}")
        for _ in range(5):
            ask(f"http://{addresses['proxy']}/x", **{"X-API-Key": KEY})
            ask(f"http://{addresses['proxy']}/x", **{"X-API-Key": "wrong"})
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait()
    names = set()
    for line in (folder / "trace").read_text(errors="replace").splitlines():
        if match := re.match(r"c?fn=\(\d+\) (.*)", line):
            names.add(re.sub(r"'\d+$", "", match[1]))
    return names


def lasting(name):
    """A name without what the next build may call otherwise."""
    return re.sub(r"17h[0-9a-f]{16}E$", "17h", re.sub(r"\.llvm\.\d+$", "", name))


def sizes(program, names):
    """For each lasting name, how many bytes of it were used, and how many there are."""
    every = {}
    for line in subprocess.run(["nm", "-S", program], check=True, capture_output=True, text=True).stdout.splitlines():
        words = line.split()
        if len(words) == 4 and words[2] in "tTwW":
            both = every.setdefault(lasting(words[3]), [0, 0])
            both[0] += int(words[1], 16) if words[3] in names else 0
            both[1] += int(words[1], 16)
    return every


def beginnings(every):
    """The shortest beginnings of names that fit hardly anything else."""
    names, found = sorted(every), []
    stack = [(0, len(names), 0)]
    while stack:
        low, high, depth = stack.pop()
        here = [every[name] for name in names[low:high]]
        was_used, there_is = sum(one[0] for one in here), sum(one[1] for one in here)
        if not was_used:
            continue
        if depth >= 6 and was_used >= ENOUGH * there_is:
            found.append(names[low][:depth] + "*")
            continue
        if len(names[low]) == depth:
            if 0 < here[0][0] >= here[0][1] - MOST_UNUSED:
                found.append(names[low] + "*" * names[low].endswith("17h"))
            low += 1
        while low < high:
            end = next((at for at in range(low, high) if names[at][depth] != names[low][depth]), high)
            stack.append((low, end, depth + 1))
            low = end
    return sorted(found)


def main():
    program = Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        names = used(program, Path(folder))
    every = sizes(program, names)
    # What the compiler takes for unlikely has a section of that name, .text.unlikely._ZN…
    lines = "".join(f"    *(.text.{'*' * one.startswith('_')}{one})\n" for one in beginnings(every))
    head = "/* Made by deploy/order.py, which says what it is. */\n"
    (ROOT / "deploy/order.ld").write_text(f"{head}SECTIONS\n{{\n  .text.used :\n  {{\n{lines}  }}\n}}\nINSERT BEFORE .text;\n")
    used_bytes = sum(one[0] for one in every.values())
    print(f"{used_bytes:,} of {sum(one[1] for one in every.values()):,} bytes are used, {lines.count(chr(10)):,} beginnings of names")


if __name__ == "__main__":
    main()
