#!/usr/bin/env python3
"""What many keys cost: the import, the start, memory, the lists of the management API, and each request through the proxy.

    bench/million.py target/release/keyward [--keys 1000000] [--rounds 9]

Prints one table, and ends with 1 where a goal is missed. Asks 127.0.0.1 only; ends only what it started."""
import argparse, hashlib, http.client, json, os, re, shutil, statistics, subprocess, sys, tempfile, time, urllib.parse

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import ab, run

MEMORY, PAGE, PROXY = 200, 50, 1.05  # MiB, milliseconds, times the request of a thousand keys
ORGANIZATIONS = 1000
ALPHABET = "0123456789abcdefghijklmnopqrstuvwxyz"


def number(n):
    text = ""
    while n:
        n, digit = divmod(n, 36)
        text = ALPHABET[digit] + text
    return text


def secret(i):
    return hashlib.sha256(b"bench key %d" % i).hexdigest()[:40]


def key_id(i):
    """21 characters, as new keys have: ten of time, eleven at random."""
    return number(1_800_000_000_000 + i).rjust(10, "0") + number(36**10 + (i * 2_654_435_761) % 36**10)


def write_keys(path, n):
    """Names of 14 characters, a thousand organizations, a fifth read-only, half with an allowlist."""
    with open(path, "w") as out:
        out.write("value\tid\tname\taccess\tips\tscope\n")
        for i in range(n):
            nets = "any" if i % 2 == 0 else ("127.0.0.0/8" if i % 10 < 6 else "127.0.0.1/32")
            out.write("%s\t%s\tstation %06d\t%s\t%s\torganization:o%03d\n" % (
                secret(i), key_id(i), i, "ro" if i % 5 == 0 else "rw", nets, i % ORGANIZATIONS))


class Site:
    """A folder with a config and a database."""
    def __init__(self, binary, folder, n):
        self.binary, self.folder, self.n = binary, folder, n
        os.makedirs(folder)
        self.port, self.admin_port, self.ops_port = run.free_port(), run.free_port(), run.free_port()

    def config(self, upstream, admin):
        path = os.path.join(self.folder, "keyward.yaml")
        open(path, "w").write("\n".join([
            "version: 1",
            'proxy: { listen: "127.0.0.1:%d", upstream: "http://127.0.0.1:%d", workers: 1 }' % (self.port, upstream),
            "credentials: { organization: true, bearer: true, query: api_key }",
            'keys: { pepper: { file: "pepper" }, shapes: [{ name: bench, length: 40, alphabet: hex }] }',
            'store: "sqlite:keyward.db"',
            'admin: { listen: "127.0.0.1:%d" }' % self.admin_port if admin else "",
            'ops: { listen: "127.0.0.1:%d" }' % self.ops_port,
            "log: { level: warn, access: none }", ""]))
        return path

    def fill(self, upstream):
        """Seconds that the import takes; the first key may manage."""
        self.config(upstream, True)
        pepper = os.path.join(self.folder, "pepper")
        open(pepper, "w").write("5a" * 32)
        os.chmod(pepper, 0o600)
        keys = os.path.join(self.folder, "keys.tsv")
        write_keys(keys, self.n)
        self.command("init")
        began = time.monotonic()
        self.command("key", "import", "--input", keys)
        took = time.monotonic() - began
        os.remove(keys)
        made = self.command("key", "create", "--name", "admin", "--role", "admin", "--output", "json")
        self.admin_key = json.loads(made)["value"]
        # What the load sends, as run.py has it.
        with open(os.path.join(self.folder, "allow.txt"), "w") as out:
            step = max(1, self.n // 4096)
            out.writelines(run.SCHEME + secret(i) + "\n" for i in range(0, self.n, step)[:4096])
        return took

    def command(self, *words):
        done = subprocess.run([self.binary, *words, "--config", os.path.join(self.folder, "keyward.yaml")],
                              capture_output=True, text=True)
        if done.returncode:
            sys.exit("%s: %s" % (" ".join(words), done.stderr))
        return done.stdout

    def serve(self, upstream, admin):
        """A running one, and the seconds until it was ready."""
        path = self.config(upstream, admin)
        proc = run.Proc([self.binary, "serve", "--config", path], 0, dict(os.environ), os.path.join(self.folder, "log"))
        while True:
            try:
                if ask(self.ops_port, "/readyz")[0] == 200:
                    return proc, time.monotonic() - proc.t0
            except OSError:
                pass
            if proc.p.poll() is not None or time.monotonic() - proc.t0 > 120:
                sys.exit("it does not start: " + open(os.path.join(self.folder, "log")).read()[-800:])
            time.sleep(0.005)


def ask(port, target, key=None):
    """(status, milliseconds, body)"""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    began = time.monotonic()
    connection.request("GET", target, headers={"Authorization": "Bearer " + key} if key else {})
    answer = connection.getresponse()
    body = answer.read()
    took = 1000 * (time.monotonic() - began)
    connection.close()
    return answer.status, took, body


def resident(proc):
    """(now, at most) in MiB"""
    text = open("/proc/%d/status" % proc.p.pid).read()
    return tuple(int(re.search(name + r":\s+(\d+)", text).group(1)) / 1024 for name in ("VmRSS", "VmHWM"))


def lists(site, rounds):
    """[(what, median and worst milliseconds, how many were found)]"""
    cursors = [key_id(i) for i in range(0, site.n, max(1, site.n // rounds))][:rounds]
    kinds = [
        ("first page", lambda i: "/v2/keys"),
        ("page in the middle", lambda i: "/v2/keys?cursor=" + cursors[i % len(cursors)]),
        ("page of 1,000", lambda i: "/v2/keys?limit=1000&cursor=" + cursors[i % len(cursors)]),
        ("one key", lambda i: "/v2/keys/" + cursors[i % len(cursors)]),
        ("search: a name, one of all", lambda i: "/v2/keys?name=" + urllib.parse.quote("station %06d" % (site.n - 1 - i))),
        ("search: a part of names", lambda i: "/v2/keys?name=tion%2000"),
        ("search: what nobody has", lambda i: "/v2/keys?name=nobody%%20has%%20%d" % i),
        ("of one organization", lambda i: "/v2/keys?scope=organization:o%03d" % (i % ORGANIZATIONS)),
        ("revoked ones: none", lambda i: "/v2/keys?state=revoked"),
    ]
    rows = []
    for what, target in kinds:
        answers = [ask(site.admin_port, target(i), site.admin_key) for i in range(rounds)]
        if any(status != 200 for status, _, _ in answers):
            print("not measured: %s: %s" % (what, answers[0][2][:300].decode()), file=sys.stderr)
            continue
        result = json.loads(answers[-1][2])["result"]
        times = [took for _, took, _ in answers]
        rows.append((what, statistics.median(times), max(times), len(result) if isinstance(result, list) else 1))
    return rows


def proxy_ratio(small, large, upstream, a):
    """Medians of CPU microseconds of both, and the median of the ratios of windows that touch."""
    running, windows = [], []
    try:
        for site in (small, large):
            running.append(site.serve(upstream, False)[0])
        sites = list(zip((small, large), running))
        for i in range(a.rounds + 1):
            pair = [ab.window(proc, site.port, os.path.join(site.folder, "allow.txt"), a)[0]
                    for site, proc in (sites if i % 2 else sites[::-1])]
            windows.append(pair if i % 2 else pair[::-1])
    finally:
        for proc in running:
            proc.stop()
    windows = windows[1:]
    return [statistics.median(column) for column in zip(*windows)], statistics.median(b / a for a, b in windows)


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("binary")
    p.add_argument("--keys", type=int, default=1_000_000)
    p.add_argument("--rounds", type=int, default=9)
    a = p.parse_args()
    a.binary, a.duration, a.connections, a.proxy_core, a.load_core = os.path.abspath(a.binary), 1, 64, 0, 1
    if os.geteuid() == 0:
        run.PRIO[:] = ["nice", "-n", "-10"]
    tmp, running, table, missed = tempfile.mkdtemp(prefix="bench-"), [], [], []

    def row(what, value, goal=None, met=True):
        table.append((what, value, goal or ""))
        if not met:
            missed.append(what)

    try:
        upstream = run.free_port()
        running.append(ab.start("direct", upstream, 0, None, {}, tmp, running))
        small, large = Site(a.binary, tmp + "/small", 1000), Site(a.binary, tmp + "/large", a.keys)
        small.fill(upstream)
        took = large.fill(upstream)
        size = os.path.getsize(large.folder + "/keyward.db") / 2**20
        row("import", "%.1f s (%s keys/s), database %.0f MiB" % (took, "{:,.0f}".format(a.keys / took), size))
        for admin in (False, True):
            proc, ready = large.serve(upstream, admin)
            running.append(proc)
            name = "with admin" if admin else "sidecar"
            row(name + ": start to ready", "%.2f s" % ready)
            time.sleep(3)
            now, most = resident(proc)
            row(name + ": resident", "%.0f MiB, at most %.0f" % (now, most), "<= %d MiB" % MEMORY, now <= MEMORY)
            if admin:
                status, first, _ = ask(large.admin_port, "/v2/keys", large.admin_key)
                row("the first list after the start", "%.0f ms%s" % (first, "" if status == 200 else ", status %d" % status))
                while ask(large.admin_port, "/v2/keys", large.admin_key)[0] != 200:
                    time.sleep(0.1)
                for what, median, worst, found in lists(large, a.rounds):
                    row(what, "%.1f ms, at most %.1f (%d)" % (median, worst, found), "< %d ms" % PAGE, median < PAGE)
                now, most = resident(proc)
                row("after the lists: resident", "%.0f MiB, at most %.0f" % (now, most), "<= %d MiB" % MEMORY, now <= MEMORY)
            running.remove(proc)
            proc.stop()
        (one, many), ratio = proxy_ratio(small, large, upstream, a)
        row("proxy, CPU per request", "%.2f us; with 1,000 keys %.2f us; ratio %.3f" % (many, one, ratio), "<= %.2f" % PROXY, ratio <= PROXY)
        print("\n%s keys, load of the machine %.1f" % ("{:,}".format(a.keys), os.getloadavg()[0]))
        for what, value, goal in table:
            print("%-36s %-52s %s" % (what, value, goal + ("  MISSED" if what in missed else "")))
    finally:
        for proc in running[::-1]:
            proc.stop()
        shutil.rmtree(tmp, ignore_errors=True)
    sys.exit(1 if missed else 0)


if __name__ == "__main__":
    main()
