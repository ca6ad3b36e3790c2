#!/usr/bin/env python3
"""CPU time per request over HTTP/2 and TLS, Keyward beside nginx. See README.md.

    bench/protocols.py --rounds 9                       # target/release/keyward
    bench/protocols.py --rounds 1 --duration 1 --modes h2c --binary PATH

    h1-tls    HTTP/1.1 over TLS, 64 connections that are kept
    h2-tls    HTTP/2 over TLS, 8 connections with 8 streams at a time each
    h2c       HTTP/2 in the clear, the same
    new-tls   a new connection and a whole handshake of TLS 1.3 for each request

Each is timed with a key that is let in (allow) and one that is not (deny). Both proxies have the same certificate (ECDSA P-256)
and speak HTTP/1.1 to the upstream. They run at once, idle but for one, and take windows in turn, as in ab.py: the ratio is
taken within a round. Loopback only; each window has a fixed length."""
import argparse, os, random, re, shutil, statistics, subprocess, sys, tempfile, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import run

# Whether TLS is spoken, and how h2load asks.
MODES = {
    "h1-tls": (True, ["--h1", "-c", "64", "-m", "1"]),
    "h2-tls": (True, ["-c", "8", "-m", "8"]),
    "h2c": (False, ["-c", "8", "-m", "8"]),
    "new-tls": (True, None),
}
PEERS = ["nginx", "keyward"]
DENIED = run.SCHEME + "0" * 40


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--binary", default=os.path.join(HERE, "..", "target", "release", "keyward"))
    p.add_argument("--modes", default=",".join(MODES), help="some of " + ",".join(MODES))
    p.add_argument("--rounds", type=int, default=9)
    p.add_argument("--duration", type=int, default=1, help="seconds per window")
    p.add_argument("--connections", type=int, default=400, help="new connections a second in new-tls")
    return p.parse_args()


def certificate(folder):
    """A certificate for localhost, and its key."""
    paths = [os.path.join(folder, name) for name in ("tls.crt", "tls.key")]
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                    "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                    "-out", paths[0], "-keyout", paths[1]], check=True, capture_output=True)
    return paths


def h2load(port, secure, options, value, limit):
    """(answers let in, answers denied) of a load; ends the run if any was lost."""
    url = "%s://127.0.0.1:%d/a/b?c=d" % ("https" if secure else "http", port)
    argv = ["h2load", "-t", "1", *options, "-H", "authorization: " + value, url]
    out, err = run.run_load(argv, 1, limit)
    codes = re.search(r"status codes: (\d+) 2xx, \d+ 3xx, (\d+) 4xx, (\d+) 5xx", out)
    lost = re.search(r"(\d+) errored, (\d+) timeout", out)
    if not codes or not lost:
        sys.exit("h2load says nothing: " + out + err)
    # At the end of a window h2load leaves what it had begun, and calls it neither.
    if int(codes[3]) or int(lost[1]) or int(lost[2]):
        sys.exit("answers were lost: " + out)
    return int(codes[1]), int(codes[2])


class Peer:
    """A proxy that runs, by TLS or in the clear."""
    def __init__(self, name, secure, folder, files, upstream, keys, binary):
        self.port, self.secure = run.free_port(), secure
        folder = os.path.join(folder, name + ("-tls" if secure else "-clear"))
        os.makedirs(folder)
        os.chmod(folder, 0o755)  # nginx's workers run as another user
        tls = "".join(" --set proxy.tls.%s=%s" % pair for pair in zip(("certificate", "key"), files)) if secure else ""
        command = "%s/keyward.sh %s {port} {upstream} {keys} {dir} 1%s" % (HERE, binary, tls)
        argv, env = run.prepare(name, folder, self.port, upstream, keys, {"keyward": (0, command)})
        if name == "nginx":
            self.listen(os.path.join(folder, "nginx.conf"), files)
        self.log = os.path.join(folder, "log")
        self.proc = run.Proc(argv, 0, env, self.log)

    def listen(self, conf, files):
        text = open(conf).read()
        plain = "listen 127.0.0.1:%d backlog=4096;" % self.port
        assert plain in text, "the listener of peers/nginx.conf has changed"
        tls = "ssl_certificate %s; ssl_certificate_key %s; ssl_protocols TLSv1.2 TLSv1.3;" % tuple(files)
        new = plain.replace(";", " %shttp2;" % ("ssl " if self.secure else "")) + (tls if self.secure else "")
        open(conf, "w").write(text.replace(plain, new))

    def wait(self, value):
        end = time.monotonic() + 60
        while time.monotonic() < end:
            out, _ = run.run_load(["h2load", "-n", "1", "-H", "authorization: " + value, "%s://127.0.0.1:%d/" % (
                "https" if self.secure else "http", self.port)], 1, 20)
            if "1 2xx" in out:
                return
            time.sleep(0.1)
        sys.exit("it did not start: " + open(self.log).read()[-800:])

    def window(self, mode, value, a):
        """CPU microseconds per request."""
        options = MODES[mode][1]
        if options is None:
            count = str(a.connections * a.duration)
            options = ["--h1", "-n", count, "-c", count, "-m", "1", "-r", str(a.connections)]
        else:
            options = [*options, "-D", str(a.duration)]
        before = sum(self.proc.cpu())
        passed, refused = h2load(self.port, self.secure, options, value, a.duration + 60)
        wanted, other = (refused, passed) if value == DENIED else (passed, refused)
        if other or not wanted:
            sys.exit("%s: %d answers of the other kind, %d of this" % (mode, other, wanted))
        return 1e6 * (sum(self.proc.cpu()) - before) / wanted


def report(rounds):
    print("\n%-8s %-6s %10s %10s %8s   us of CPU per request, medians; the ratio within rounds, +- its standard error" % (
        "mode", "", *PEERS, "ratio"))
    for mode, kind in sorted({key[:2] for key in rounds[0]}, key=lambda key: (list(MODES).index(key[0]), key[1])):
        values = [[r[mode, kind, peer] for r in rounds] for peer in PEERS]
        ratios = [ours / theirs for theirs, ours in zip(*values) if theirs]
        error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else 0
        print("%-8s %-6s %10.1f %10.1f %8.3f +- %.3f" % (
            mode, kind, *(statistics.median(v) for v in values), statistics.median(ratios) if ratios else 0, error))


def main():
    a = arguments()
    modes = a.modes.split(",")
    if os.geteuid() == 0:
        run.PRIO[:] = ["nice", "-n", "-10"]
    tmp = tempfile.mkdtemp(prefix="protocols-")
    os.chmod(tmp, 0o755)
    running, rounds = [], []
    try:
        keys, upstream = run.Keys(1000, tmp), run.free_port()
        folder = os.path.join(tmp, "direct")
        os.makedirs(folder)
        argv, env = run.prepare("direct", folder, upstream, 0, None, {})
        running.append(run.Proc(argv, 1, env, folder + "/log"))
        files, peers, allowed = certificate(tmp), {}, run.SCHEME + keys.chk["rw"][0]
        for name in PEERS:
            for secure in {MODES[mode][0] for mode in modes}:
                peer = peers[name, secure] = Peer(name, secure, tmp, files, upstream, keys, a.binary)
                running.append(peer.proc)
                peer.wait(allowed)
        contests = [(mode, kind, name) for mode in modes for kind in ("allow", "deny") for name in PEERS]
        values = {"allow": allowed, "deny": DENIED}
        for n in range(a.rounds + 1):  # the first is for warmth
            rounds.append({(mode, kind, name): peers[name, MODES[mode][0]].window(mode, values[kind], a)
                           for mode, kind, name in random.sample(contests, len(contests))})
        report(rounds[1:])
    finally:
        for proc in running[::-1]:
            proc.stop()
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    main()
