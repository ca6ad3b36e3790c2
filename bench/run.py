#!/usr/bin/env python3
"""Times key-checking reverse proxies side by side on one machine. See README.md.

  run.py --peers nginx,haproxy,floor --extra 'keyward:PORT:COMMAND' --scenario allow,deny,1k

Sends traffic to 127.0.0.1 only (and from 127.0.0.2 in the checks).
"""
import argparse, datetime, hashlib, json, os, platform, re, shlex, shutil, signal, socket
import statistics, string, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
PEERS = os.path.join(HERE, "peers")
TOOLS = os.environ.get("BENCH_TOOLS") or os.path.join(
    os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "keyward-bench")
SCHEME = "APIKEY:ORGANIZATION "
BODY = ("<?xml version=\"1.0\" encoding=\"UTF-8\"?><list>" +
        "".join("<item id=\"%03d\"><name>object %03d</name><size>%d</size></item>" % (i, i, i * 4096)
                for i in range(16)) + "</list>")
BODY = BODY + "<!--" + "x" * (1024 - len(BODY) - 7) + "-->" if len(BODY) < 1017 else BODY
HZ = os.sysconf("SC_CLK_TCK")
PRIO = []  # command prefix that sets the priority of what is timed (--nice)
SIZES = {"1k": 1000, "10k": 10000, "100k": 100000}
# name of an allowlist -> its networks; the set of distinct allowlists is small so that peers
# which can only name them (nginx geo, HAProxy acl) express the same rule.
NETS = {"lo8": "127.0.0.0/8", "lo1": "127.0.0.1/32", "ten": "10.0.0.0/8"}
NO_AUTH = {"direct", "nginx-plain", "haproxy-plain"}
ALL = ["nginx", "haproxy", "floor", "direct", "nginx-plain", "haproxy-plain"]


# ---------------------------------------------------------------- keys
def make_keys(n):
    """[(key, id, mode, allowlist name)]; 20% read-only, half with an allowlist. The last six
    are for the checks. Deterministic."""
    out = []
    for i in range(n):
        key = hashlib.sha256(b"bench key %d" % i).hexdigest()[:40]
        mode = "ro" if i % 5 == 0 else "rw"
        nets = "any" if i % 2 == 0 else ("lo8" if i % 10 < 6 else "lo1")
        out.append((key, "k%06d" % i, mode, nets))
    special = [("rw", "any"), ("ro", "any"), ("rw", "ten"), ("rw", "lo1"), ("rw", "lo8"), ("ro", "ten")]
    for j, (mode, nets) in enumerate(special):
        i = n - len(special) + j
        out[i] = (out[i][0], out[i][1], mode, nets)
    return out


class Keys:
    def __init__(self, n, tmp):
        self.n, self.rows = n, make_keys(n)
        self.dir = os.path.join(tmp, "keys-%d" % n)
        os.makedirs(self.dir)
        w = lambda name, lines: open(os.path.join(self.dir, name), "w").write("".join(lines))
        w("keys.tsv", ("%s\t%s\t%s\t%s\n" % (k, i, m, NETS.get(a, a)) for k, i, m, a in self.rows))
        w("ids.map", ('"%s%s" %s;\n' % (SCHEME, k, i) for k, i, m, a in self.rows))
        w("ro.map", ("%s 1;\n" % i for k, i, m, a in self.rows if m == "ro"))
        w("nets.map", ("%s %s;\n" % (i, a) for k, i, m, a in self.rows if a != "any"))
        w("keys.map", ("%s %s|%s|%s\n" % (k, i, m, a) for k, i, m, a in self.rows))
        # What the load generator sends: up to 4096 valid keys spread over the set; 1000 bad ones.
        good = [r for r in self.rows[:-6]]
        step = max(1, len(good) // 4096)
        w("allow.txt", (SCHEME + r[0] + "\n" for r in good[::step][:4096]))
        w("deny.txt", (SCHEME + hashlib.sha256(b"bad %d" % i).hexdigest()[:40] + "\n" for i in range(1000)))
        self.tsv = os.path.join(self.dir, "keys.tsv")
        self.chk = dict(zip(["rw", "ro", "ten", "lo1", "lo8", "ro_ten"], self.rows[-6:]))


# ---------------------------------------------------------------- peers
def tool(name):
    p = os.path.join(TOOLS, "bin", name)
    if os.path.exists(p):
        return p
    return shutil.which(name) or shutil.which(name, path="/usr/sbin:/usr/local/sbin")


def render(template, out, **kw):
    text = string.Template(open(os.path.join(PEERS, template)).read()).substitute(**kw)
    open(out, "w").write(text)
    return out


def prepare(name, d, port, up, keys, extra):
    """Writes the peer's files into d; gives (argv, env)."""
    env = dict(os.environ)
    floor = tool("floor-proxy")
    if name in extra:
        fill = {"port": port, "upstream": "127.0.0.1:%d" % up, "upstream_port": up, "keys": keys.tsv, "dir": d}
        cmd = extra[name][1]
        for k, v in fill.items():
            cmd = cmd.replace("{%s}" % k, str(v))
        return ["sh", "-c", "exec " + cmd], env
    if name == "direct":
        open(d + "/body", "w").write(BODY)
        return [floor, str(port), "serve", d + "/body"], env
    if name.startswith("nginx"):
        for f in ("ids.map", "ro.map", "nets.map"):
            os.path.exists(d + "/" + f) or os.symlink(os.path.join(keys.dir, f), d + "/" + f)
        kw = dict(dir=d, port=port, upstream_port=up)
        if name == "nginx":
            kw.update(map_hash_max=max(2048, keys.n * 4),
                      geos="\n".join("    geo $in_%s { default 0; %s 1; }" % (a, c) for a, c in NETS.items()),
                      ipmap=" ".join("%s $in_%s;" % (a, a) for a in NETS))
        c = render(name + ".conf", d + "/nginx.conf", **kw)
        return [tool("nginx"), "-p", d, "-c", c, "-e", d + "/error.log"], env
    if name.startswith("haproxy"):
        os.path.exists(d + "/keys.map") or os.symlink(os.path.join(keys.dir, "keys.map"), d + "/keys.map")
        acls = "\n".join("    http-request deny deny_status 403 if { var(txn.nets) -m str %s } !{ src %s }" % (a, c)
                         for a, c in NETS.items())
        kw = dict(dir=d, port=port, upstream_port=up)
        if name == "haproxy":
            kw["acls"] = acls
        c = render(name + ".cfg", d + "/haproxy.cfg", **kw)
        return [tool("haproxy"), "-db", "-q", "-f", c], env
    return [floor, str(port), "127.0.0.1:%d" % up, keys.tsv], env  # the floor itself


# ---------------------------------------------------------------- processes
def autogroup(pid):
    """With autogroup scheduling, niceness counts within a session only: set the session's too."""
    if PRIO:
        try:
            open("/proc/%d/autogroup" % pid, "w").write(PRIO[2])
        except OSError:
            pass


def run_load(argv, core, limit):
    p = subprocess.Popen(PRIO + ["taskset", "-c", str(core)] + argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                         stderr=subprocess.PIPE, text=True, start_new_session=True)
    autogroup(p.pid)
    try:
        out, err = p.communicate(timeout=limit)
    except BaseException:
        p.kill()
        p.communicate()
        raise
    return out, err


class Proc:
    """A server we start: in its own session, pinned to a core, ended by its pids."""
    def __init__(self, argv, core, env, log):
        self.log = open(log, "ab")
        self.t0 = time.monotonic()
        self.p = subprocess.Popen(PRIO + ["taskset", "-c", str(core)] + argv, env=env, stdin=subprocess.DEVNULL,
                                  stdout=self.log, stderr=self.log, start_new_session=True)

        autogroup(self.p.pid)

    def pids(self):
        out = []
        for e in os.listdir("/proc"):
            if e.isdigit():
                try:
                    f = open("/proc/%s/stat" % e).read().rsplit(")", 1)[1].split()
                except OSError:
                    continue
                if int(f[3]) == self.p.pid and f[0] != "Z":
                    out.append(int(e))
        return out

    def cpu(self):
        """(user, system) seconds of all its processes and threads so far."""
        u = s = 0
        for pid in self.pids():
            try:
                f = open("/proc/%d/stat" % pid).read().rsplit(")", 1)[1].split()
                u += int(f[11]); s += int(f[12])
            except OSError:
                pass
        return u / HZ, s / HZ

    def memory(self):
        """(largest VmHWM of one process, sum of PSS) in MiB."""
        hwm = pss = 0
        for pid in self.pids():
            try:
                m = re.search(r"VmHWM:\s+(\d+)", open("/proc/%d/status" % pid).read())
                hwm = max(hwm, int(m.group(1)) if m else 0)
                m = re.search(r"\nPss:\s+(\d+)", open("/proc/%d/smaps_rollup" % pid).read())
                pss += int(m.group(1)) if m else 0
            except OSError:
                pass
        return hwm / 1024, pss / 1024

    def stop(self):
        pids = self.pids()
        for sig in (signal.SIGTERM, signal.SIGKILL):
            for pid in pids:
                try:
                    os.kill(pid, sig)
                except ProcessLookupError:
                    pass
            end = time.monotonic() + 1.0
            while time.monotonic() < end:
                self.p.poll()
                pids = self.pids()
                if not pids:
                    break
                time.sleep(0.02)
            if not pids:
                break
        try:
            self.p.wait(2)
        except subprocess.TimeoutExpired:
            pass
        self.log.close()


def core_times():
    out = {}
    for line in open("/proc/stat"):
        m = re.match(r"cpu(\d+) (.*)", line)
        if m:
            v = [int(x) for x in m.group(2).split()]
            out[int(m.group(1))] = ((v[0] + v[1] + v[2] + v[5] + v[6]) / HZ, v[7] / HZ)  # busy, steal
    return out


def free_port():
    s = socket.socket()
    s.bind(("127.0.0.1", 0))
    p = s.getsockname()[1]
    s.close()
    return p


# ---------------------------------------------------------------- requests for the checks
def ask(port, method, path, headers=(), body=b"", src="127.0.0.1", sock=None):
    """(status, headers, body, keeps the connection open?)"""
    s = sock or socket.create_connection(("127.0.0.1", port), 5, (src, 0))
    s.settimeout(5)
    h = ["%s %s HTTP/1.1" % (method, path), "Host: bench.example"] + list(headers)
    if body or method == "POST":
        h.append("Content-Length: %d" % len(body))
    s.sendall(("\r\n".join(h) + "\r\n\r\n").encode() + body)
    buf = b""
    while b"\r\n\r\n" not in buf:
        c = s.recv(65536)
        if not c:
            raise OSError("closed before a full response: %r" % buf[:100])
        buf += c
    head, rest = buf.split(b"\r\n\r\n", 1)
    lines = head.decode("latin1").split("\r\n")
    status = int(lines[0].split()[1])
    hs = {k.strip().lower(): v.strip() for k, v in (l.split(":", 1) for l in lines[1:])}
    keep = "close" not in hs.get("connection", "").lower()
    if method != "HEAD" and status not in (204, 304):
        if "content-length" in hs:
            n = int(hs["content-length"])
            while len(rest) < n:
                c = s.recv(65536)
                if not c:
                    raise OSError("short body")
                rest += c
        elif "chunked" in hs.get("transfer-encoding", ""):
            while not rest.endswith(b"0\r\n\r\n"):
                c = s.recv(65536)
                if not c:
                    raise OSError("short chunked body")
                rest += c
            out, r = b"", rest
            while r:
                size, r = r.split(b"\r\n", 1)
                n = int(size, 16)
                if n == 0:
                    break
                out, r = out + r[:n], r[n + 2:]
            rest = out
        else:
            while True:
                c = s.recv(65536)
                if not c:
                    break
                rest += c
            keep = False
    if sock is None:
        s.close()
    return status, hs, rest, keep


def auth(key):
    return "Authorization: " + SCHEME + key


def check_peer(port, keys, has_auth):
    """Returns (failures, notes)."""
    bad, notes = [], []

    def expect(what, ok, got=""):
        if not ok:
            bad.append("%s (got %s)" % (what, got))

    def status(*a, **k):
        try:
            return ask(port, *a, **k)[0]
        except OSError as e:
            return "error: %s" % e
    c = {k: v[0] for k, v in keys.chk.items()}
    ids = {k: v[1] for k, v in keys.chk.items()}
    try:
        st, _, body, _ = ask(port, "GET", "/a/b?c=d", [auth(c["rw"])])
        expect("valid key: 200 with the upstream's body", st == 200 and body == BODY.encode(), "%s, %d bytes" % (st, len(body)))
        if not has_auth:
            return bad, notes
        denied = (401, 403)
        expect("no key: 401/403", status("GET", "/") in denied, status("GET", "/"))
        for what, h in (("unknown key", auth("0" * 40)), ("key without its scheme", "Authorization: " + c["rw"]),
                        ("prefix of a key", auth(c["rw"][:-1])), ("key with a tail", auth(c["rw"] + "0")),
                        ("empty key", auth(""))):
            st = status("GET", "/", [h])
            expect(what + ": 401/403", st in denied, st)
        for row in keys.rows[0], keys.rows[keys.n // 2], keys.rows[-7]:
            st = status("GET", "/", [auth(row[0])])
            expect("valid key %s: 200" % row[1], st == 200, st)
        for what, k, m, src, want in (
                ("read-only key, POST: denied", "ro", "POST", "127.0.0.1", denied),
                ("read-only key, DELETE: denied", "ro", "DELETE", "127.0.0.1", denied),
                ("read-only key, GET: 200", "ro", "GET", "127.0.0.1", (200,)),
                ("read-only key, HEAD: 200", "ro", "HEAD", "127.0.0.1", (200,)),
                ("read-write key, POST: 200", "rw", "POST", "127.0.0.1", (200,)),
                ("allowlist elsewhere: denied", "ten", "GET", "127.0.0.1", denied),
                ("allowlist 127.0.0.1/32 from 127.0.0.1: 200", "lo1", "GET", "127.0.0.1", (200,)),
                ("allowlist 127.0.0.1/32 from 127.0.0.2: denied", "lo1", "GET", "127.0.0.2", denied),
                ("allowlist 127.0.0.0/8 from 127.0.0.2: 200", "lo8", "GET", "127.0.0.2", (200,))):
            st = status(m, "/", [auth(c[k])], src=src)
            expect(what, st in want, st)
        st, _, raw, _ = ask(port, "GET", "/_echo", [auth(c["rw"])])
        raw = raw.decode("latin1")
        expect("credential not forwarded", st == 200 and c["rw"] not in raw, raw[:300])
        ident = re.search(r"(?m)^([\w-]+):[ \t]*(?:\S*[^\w])?%s\r?$" % re.escape(ids["rw"]), raw)
        expect("identity header seen upstream", bool(ident), raw[:300])
        if ident:
            name = ident.group(1)
            st, _, raw2, _ = ask(port, "GET", "/_echo", [auth(c["rw"]), name + ": spoofed"])
            expect("client's own identity header not forwarded", "spoofed" not in raw2.decode("latin1"), raw2[:300])
            notes.append("identity header: %s" % ident.group(0).strip())
        used = 0
        for _ in range(3):
            _, _, raw3, _ = ask(port, "GET", "/_echo", [auth(c["rw"])])
            used = max(used, int(re.search(rb"connection_requests=(\d+)", raw3).group(1)))
        expect("upstream connection reused", used > 1, used)
        # Notes: not required, but they change what is timed or are worth knowing.
        s = socket.create_connection(("127.0.0.1", port), 5)
        st, h, b, keep = ask(port, "GET", "/", [auth("0" * 40)], sock=s)
        if keep:
            try:
                keep = ask(port, "GET", "/", [auth("0" * 40)], sock=s)[0] in denied
            except OSError:
                keep = False
        s.close()
        notes.append("after a denial the connection %s; denial is %d with %d body bytes"
                     % ("stays open" if keep else "CLOSES", st, len(b)))
        if status("GET", "/", [auth(c["rw"].upper())]) == 200:
            notes.append("keys compare WITHOUT regard to case")
    except (OSError, ValueError, AttributeError) as e:
        bad.append("checks stopped: %s: %s" % (type(e).__name__, e))
    return bad, notes


# ---------------------------------------------------------------- load
def wrk(port, keyfile, secs, conns, core):
    out, err = run_load([tool("wrk"), "-t1", "-c%d" % conns, "-d%ds" % secs, "--timeout", "5s",
                         "-s", os.path.join(HERE, "wrk.lua"), "http://127.0.0.1:%d/v1/objects/123?list=1" % port, "--", keyfile],
                        core, secs + 30)
    m = re.search(r"^JSON (.*)$", out, re.M)
    if not m:
        raise RuntimeError("wrk: " + (err + out)[-300:])
    return json.loads(m.group(1))


def open_load(port, keyfile, secs, conns, core, rate):
    out, err = run_load([tool("floor-proxy"), str(port), "load", str(rate), str(secs), str(conns), keyfile], core, secs + 30)
    m = re.search(r"^JSON (.*)$", out, re.M)
    if not m:
        raise RuntimeError("load: " + (err + out)[-300:])
    return json.loads(m.group(1))


def measure(scn, proc, upstream, port, keys, has_auth, a):
    """One timed window."""
    f = "-" if not has_auth else os.path.join(keys.dir, "deny.txt" if scn == "deny" else "allow.txt")
    wrk(port, f, 1, a.connections, a.load_core)  # warm-up
    c0, t0, u0, k0 = proc.cpu(), time.monotonic(), upstream.cpu(), core_times()
    if scn == "open":
        r = open_load(port, f, a.duration, a.open_connections, a.load_core, a.rate)
    else:
        r = wrk(port, f, a.duration, a.connections, a.load_core)
    wall = time.monotonic() - t0
    c1, u1, k1 = proc.cpu(), upstream.cpu(), core_times()
    n = r["requests"]
    if n == 0:
        raise RuntimeError("no request was served")
    want_errors = n if scn == "deny" and has_auth else 0
    if r["status_errors"] != want_errors or r["socket_errors"]:
        r["warning"] = "%d of %d not 2xx/3xx (want %d), %d socket errors" % (r["status_errors"], n, want_errors, r["socket_errors"])
    cpu = sum(c1) - sum(c0)
    r.update(rps=n / (r["duration_us"] / 1e6), cpu_us=cpu / n * 1e6,
             user_us=(c1[0] - c0[0]) / n * 1e6, sys_us=(c1[1] - c0[1]) / n * 1e6,
             busy=cpu / wall, upstream_cpu_us=(sum(u1) - sum(u0)) / n * 1e6,
             load_core_busy=(k1[a.load_core][0] - k0[a.load_core][0]) / wall,
             foreign=max(0.0, (k1[a.proxy_core][0] - k0[a.proxy_core][0] - cpu) / wall),
             steal=(k1[a.proxy_core][1] - k0[a.proxy_core][1]) / wall)
    return r


def wait_ready(proc, port, key, limit):
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if proc.p.poll() is not None:
            return None
        try:
            st = ask(port, "GET", "/", [auth(key)])[0]
            if st == 200:
                return time.monotonic() - proc.t0
        except (OSError, ValueError, IndexError):
            pass
        time.sleep(0.01)
    return None


def syscalls(proc, port, keys, has_auth, scn, a):
    """System calls per request while the load runs, by strace -c (which slows the peer several times over)."""
    f = "-" if not has_auth else os.path.join(keys.dir, "deny.txt" if scn == "deny" else "allow.txt")
    out = tempfile.NamedTemporaryFile("r", suffix=".txt")
    wrk(port, f, 1, a.connections, a.load_core)
    t = subprocess.Popen(["strace", "-c", "-f", "-o", out.name] + sum((["-p", str(p)] for p in proc.pids()), []),
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    time.sleep(1)
    if scn == "open":
        r = open_load(port, f, 3, a.open_connections, a.load_core, a.rate)
    else:
        r = wrk(port, f, 3, a.connections, a.load_core)
    t.send_signal(signal.SIGINT)
    t.wait(20)
    counts = {}
    for line in out.read().split("\n"):
        w = line.split()
        if len(w) >= 5 and re.match(r"[\d.]+$", w[0]) and w[3].isdigit() and w[-1] != "total":
            counts[w[-1]] = counts.get(w[-1], 0) + int(w[3])
    n = r["requests"]
    return n, {k: v / n for k, v in sorted(counts.items(), key=lambda x: -x[1]) if v / n >= 0.005}


# ---------------------------------------------------------------- main
def table(rows, head):
    w = [max(len(str(r[i])) for r in [head] + rows) for i in range(len(head))]
    fmt = lambda r: "| " + " | ".join(str(x).ljust(w[i]) if i == 0 else str(x).rjust(w[i]) for i, x in enumerate(r)) + " |"
    return "\n".join([fmt(head), "|" + "|".join("-" * (x + 2) for x in w) + "|"] + [fmt(r) for r in rows])


def report(results, baseline):
    """Prints the tables. Medians over the rounds; ratios are taken within a round, then the
    median; 'best' is the lowest CPU time per request of any round (least disturbed), or the lowest p99."""
    med = statistics.median
    for key, by in results["peers"].items():
        rows = []
        base = by.get(baseline, {})
        for name, rs in sorted(by.items(), key=lambda x: med(r["cpu_us"] for r in x[1].values())):
            g = lambda f: med(r[f] for r in rs.values())
            both = [i for i in rs if i in base]
            ratio = lambda f: "%.2f" % med(rs[i][f] / base[i][f] for i in both) if both else "-"
            rows.append([name, "%.0f" % g("rps"), ratio("rps"), "%.1f" % g("cpu_us"), ratio("cpu_us"),
                         "%.1f" % min(r["cpu_us"] for r in rs.values()), "%.1f+%.1f" % (g("user_us"), g("sys_us")),
                         "%d" % g("p50_us"), "%d" % g("p99_us"), "%d" % min(r["p99_us"] for r in rs.values()), "%d" % g("p999_us"), "%.1f" % max(r["hwm_mb"] for r in rs.values()),
                         "%.1f" % g("pss_mb"), "%.2f" % g("ready_s"), "%.0f" % (100 * g("busy")), "%.0f" % (100 * g("load_core_busy")),
                         "%.0f" % (100 * (g("foreign") + g("steal"))), "!" if any("warning" in r for r in rs.values()) else ""])
        print("\n%s: median of %d rounds; ratios (x) to %s within a round" % (key, max(len(r) for r in by.values()), baseline))
        print(table(rows, ["peer", "req/s", "x", "CPU us/req", "x", "best", "user+sys", "p50 us", "p99 us", "best", "p99.9 us", "VmHWM MiB",
                           "PSS MiB", "ready s", "proxy busy %", "load core %", "others %", "warn"]), flush=True)
    for key, per in results.get("sys", {}).items():
        print("%-22s %5.2f system calls/request: %s" % (key, sum(per.values()), ", ".join("%s %.2f" % x for x in per.items())))


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--peers", default="nginx,haproxy,floor", help="of: " + ",".join(ALL) + "; or 'all' or 'none'")
    p.add_argument("--extra", action="append", default=[], metavar="NAME:PORT:COMMAND",
                   help="another peer; COMMAND may use {port} {upstream} {upstream_port} {keys} {dir}; PORT 0 picks a free one")
    p.add_argument("--scenario", default="allow,deny,1k", help="any of allow, deny, open with any of 1k, 10k, 100k")
    p.add_argument("--baseline", default="nginx")
    p.add_argument("--rounds", type=int, default=3)
    p.add_argument("--duration", type=int, default=8, help="seconds per timed window")
    p.add_argument("--connections", type=int, default=64)
    p.add_argument("--open-connections", type=int, default=64)
    p.add_argument("--rate", type=int, default=4000, help="requests/s of scenario 'open'")
    p.add_argument("--proxy-core", type=int, default=0)
    p.add_argument("--load-core", type=int, default=1)
    p.add_argument("--nice", type=int, default=-10, help="niceness of proxy, upstream and load generator (below 0 needs root; 0 for none)")
    p.add_argument("--check-only", action="store_true")
    p.add_argument("--syscalls", action="store_true", help="count system calls per request (strace) instead of timing")
    p.add_argument("--report", metavar="FILE", help="print the tables of an earlier run's JSON and stop")
    p.add_argument("--ready-limit", type=float, default=120)
    p.add_argument("--json", default=None, help="where to write the results (default: results/<time>.json beside this file)")
    a = p.parse_args()

    if a.report:
        return report(json.load(open(a.report)), a.baseline)
    if a.nice and (a.nice > 0 or os.geteuid() == 0):
        PRIO[:] = ["nice", "-n", str(a.nice)]
    names = [] if a.peers == "none" else ALL if a.peers == "all" else [x for x in a.peers.split(",") if x]
    extra = {}
    for e in a.extra:
        n, port, cmd = e.split(":", 2)
        extra[n] = (int(port), cmd)
        names.append(n)
    for n in names:
        if n not in ALL and n not in extra:
            p.error("unknown peer " + n)
    tokens = a.scenario.split(",")
    sizes = [t for t in tokens if t in SIZES] or ["1k"]
    scns = [t for t in tokens if t in ("allow", "deny", "open")] or ["allow"]
    unknown = [t for t in tokens if t not in SIZES and t not in ("allow", "deny", "open")]
    if unknown:
        p.error("unknown scenario " + ",".join(unknown))
    for t in ["floor-proxy", "wrk"] + [n.split("-")[0] for n in names if n.startswith(("nginx", "haproxy"))]:
        if not tool(t):
            sys.exit("%s is missing: run bench/setup.sh first" % t)
    out_path = a.json or os.path.join(HERE, "results", datetime.datetime.now().strftime("%Y%m%d-%H%M%S") + ".json")
    os.makedirs(os.path.dirname(os.path.abspath(out_path)), exist_ok=True)

    tmp = tempfile.mkdtemp(prefix="bench-")
    os.chmod(tmp, 0o755)  # nginx workers run as another user
    results = {"date": datetime.datetime.now().isoformat(timespec="seconds"), "cores": os.cpu_count(), "kernel": platform.release(),
               "args": {k: v for k, v in vars(a).items() if k not in ("json", "extra", "report")}, "extra": sorted(extra), "peers": {}, "sys": {}}
    running = []
    try:
        up_port = free_port()
        ud = tmp + "/upstream"
        os.makedirs(ud)
        argv, env = prepare("direct", ud, up_port, 0, None, {})
        upstream = Proc(argv, a.load_core, env, ud + "/log")
        running.append(upstream)
        if wait_ready(upstream, up_port, "x", 10) is None:
            sys.exit("the upstream did not start: " + open(ud + "/log").read()[-500:])
        for size in sizes:
            keys = Keys(SIZES[size], tmp)
            dropped, checked = {}, {}
            for rnd in range(1 if a.check_only or a.syscalls else a.rounds):
                k = rnd % max(1, len(names))
                for name in names[k:] + names[:k]:  # another one first each round
                    if name in dropped:
                        continue
                    has_auth = name not in NO_AUTH
                    if not has_auth and size != sizes[0]:
                        continue
                    port = (extra[name][0] if name in extra else 0) or free_port()
                    d = tempfile.mkdtemp(prefix=name + "-", dir=tmp)
                    os.chmod(d, 0o755)
                    prep = prepare(name, d, port, up_port, keys, extra)
                    proc = Proc(prep[0], a.proxy_core, prep[1], d + "/log")
                    running.append(proc)
                    try:
                        ready = wait_ready(proc, port, keys.chk["rw"][0], a.ready_limit)
                        if ready is None:
                            dropped[name] = "did not start or never answered 200"
                            print("-- %s [%s keys]: left out: %s\n%s" % (name, size, dropped[name], open(d + "/log", errors="replace").read()[-1500:]), flush=True)
                            continue
                        hwm0, pss0 = proc.memory()
                        if name not in checked:
                            bad, notes = check_peer(port, keys, has_auth)
                            checked[name] = (bad, notes)
                            print("-- %s [%s keys]: ready in %.2f s; checks %s%s" % (
                                name, size, ready, "FAILED: " + "; ".join(bad) if bad else "passed",
                                " (%s)" % "; ".join(notes) if notes else ""), flush=True)
                            if bad:
                                dropped[name] = "failed checks: " + "; ".join(bad)
                                continue
                        if a.check_only:
                            continue
                        if a.syscalls:
                            for scn in scns:
                                if scn == "deny" and not has_auth:
                                    continue
                                n, per = syscalls(proc, port, keys, has_auth, scn, a)
                                results["sys"]["%s/%s/%s" % (name, scn, size)] = per
                                print("   %s %s: %.2f system calls/request over %d requests: %s" % (
                                    name, scn, sum(per.values()), n, ", ".join("%s %.2f" % x for x in per.items())), flush=True)
                            continue
                        for scn in scns:
                            if scn == "deny" and not has_auth:
                                continue
                            try:
                                r = measure(scn, proc, upstream, port, keys, has_auth, a)
                            except (RuntimeError, subprocess.TimeoutExpired, ValueError, KeyError) as e:
                                print("   %s %s round %d: no measurement: %s" % (name, scn, rnd + 1, e), flush=True)
                                continue
                            r["ready_s"], r["load_pss_mb"] = ready, pss0
                            r["hwm_mb"], r["pss_mb"] = proc.memory()
                            results["peers"].setdefault("%s/%s" % (scn, size), {}).setdefault(name, {})[rnd] = r
                            print("   round %d %s %s/%s: %.0f req/s, %.2f CPU us/req (user %.2f sys %.2f), p50 %d p99 %d us, core %.0f%% busy, others %.0f%% steal %.0f%%%s" % (
                                rnd + 1, name, scn, size, r["rps"], r["cpu_us"], r["user_us"], r["sys_us"], r["p50_us"], r["p99_us"],
                                100 * r["busy"], 100 * r["foreign"], 100 * r["steal"], "  WARNING " + r["warning"] if "warning" in r else ""), flush=True)
                    finally:
                        proc.stop()
                        running.remove(proc)
                        shutil.rmtree(d, ignore_errors=True)
                    json.dump(results, open(out_path, "w"), indent=1)
            results.setdefault("left_out", {})[size] = dropped
            results.setdefault("checks", {})[size] = {n: {"failures": b, "notes": t} for n, (b, t) in checked.items()}
        report(results, a.baseline)
        json.dump(results, open(out_path, "w"), indent=1)
        print("\nwritten: " + os.path.relpath(out_path))
        for size, d in results.get("left_out", {}).items():
            for n, why in d.items():
                print("left out [%s]: %s: %s" % (size, n, why))
        if any(results.get("left_out", {}).values()) and a.check_only:
            sys.exit(1)
    finally:
        for r in running[::-1]:
            r.stop()
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    main()
