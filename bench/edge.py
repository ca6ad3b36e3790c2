#!/usr/bin/env python3
"""What Keyward does when clients misbehave, or come in numbers. Loopback only; each run has a fixed length.

    bench/edge.py idle [--connections 10000]   memory of connections that were used once and then wait
    bench/edge.py slowloris [--clients 1000]   good requests' waiting time while others send a byte of a head each second
    bench/edge.py overload                     answers of the upstream per second at twice as many clients as bring it to its peak,
                                               waiting in line, and (without a bar) refused beyond max_requests and coming back at once

--binary names the program; the default is target/release/keyward. A run ends with exit code 1 where its bar is missed."""
import argparse, os, shutil, socket, statistics, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import run


class Stand:
    """An upstream and Keyward in front of it, with 1,000 keys."""
    def __init__(self, binary, settings):
        self.tmp = tempfile.mkdtemp(prefix="edge-")
        self.running = []
        self.keys = run.Keys(1000, self.tmp)
        upstream, self.port = run.free_port(), run.free_port()
        argv, env = run.prepare("direct", self.folder("direct"), upstream, 0, None, {})
        self.start(argv, 1, env, upstream, "x")
        command = "%s/keyward.sh %s {port} {upstream} {keys} {dir} 1 %s" % (HERE, binary, " ".join("--set " + s for s in settings))
        argv, env = run.prepare("keyward", self.folder("keyward"), self.port, upstream, self.keys, {"keyward": (0, command)})
        self.proxy = self.start(argv, 0, env, self.port, self.keys.chk["rw"][0])

    def folder(self, name):
        folder = os.path.join(self.tmp, name)
        os.makedirs(folder)
        return folder

    def start(self, argv, core, env, port, key):
        log = os.path.join(self.tmp, "log-%d" % port)
        proc = run.Proc(argv, core, env, log)
        self.running.append(proc)
        if run.wait_ready(proc, port, key, 30) is None:
            sys.exit("it did not start: " + open(log).read()[-800:])
        return proc

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for proc in self.running[::-1]:
            proc.stop()
        shutil.rmtree(self.tmp, ignore_errors=True)

    def resident(self):
        """MiB."""
        return self.proxy.memory()[1]

    def keyfile(self, name):
        return os.path.join(self.keys.dir, name + ".txt")


def verdict(holds, text):
    print(text + (" - holds" if holds else " - MISSED"))
    sys.exit(0 if holds else 1)


def idle(a):
    with Stand(a.binary, ["proxy.max_connections=%d" % (a.connections + 100)]) as stand:
        run.wrk(stand.port, stand.keyfile("allow"), 1, 64, 1)
        before, head = stand.resident(), run.auth(stand.keys.chk["rw"][0])
        waiting = []
        for n in range(a.connections):
            # A source address for each 20,000, so that ports do not run out.
            s = socket.create_connection(("127.0.0.1", stand.port), 5, ("127.0.0.%d" % (1 + n // 20000), 0))
            status = run.ask(stand.port, "GET", "/", [head], sock=s)[0]
            assert status == 200, status
            waiting.append(s)
        after = stand.resident()
        status = run.ask(stand.port, "GET", "/", [head])[0]
        for s in waiting:
            s.close()
        each = (after - before) * 1024 / a.connections
        verdict(status == 200 and each <= 24, "%d idle connections: %.1f MiB, was %.1f: %.1f KiB each (bar 24)" % (
            a.connections, after, before, each))


def slowloris(a):
    with Stand(a.binary, ["proxy.timeouts.head=10s"]) as stand:
        quiet = measured(stand, a)
        stop = threading.Event()
        attack = threading.Thread(target=dribble, args=(stand.port, a.clients, stop))
        attack.start()
        time.sleep(2)
        attacked = measured(stand, a)
        stop.set()
        attack.join()
        verdict(attacked["p99_us"] <= 2 * quiet["p99_us"], "slowloris with %d clients: p99 %d us, without %d us (bar 2 x); %d errors" % (
            a.clients, attacked["p99_us"], quiet["p99_us"], attacked["status_errors"] + attacked["socket_errors"]))


def measured(stand, a):
    """The median of three windows by their p99: a neighbour's pause is no fault of the program."""
    windows = [run.open_load(stand.port, stand.keyfile("allow"), a.seconds, 64, 1, a.rate) for _ in range(3)]
    return sorted(windows, key=lambda w: w["p99_us"])[1]


def dribble(port, clients, stop):
    """Each client sends a byte of a head each second, and comes back when it is sent away."""
    text = b"GET / HTTP/1.1\r\nHost: a\r\nX-Slow: " + b"a" * 3600
    connect = lambda: [socket.create_connection(("127.0.0.1", port), 5), 0]
    open_ = [connect() for _ in range(clients)]
    while not stop.is_set():
        began = time.monotonic()
        for n, one in enumerate(open_):
            # Spread over the second: it is the proxy that is to be tried, not the machine.
            time.sleep(max(0, n / clients - (time.monotonic() - began)) if n % 10 == 0 else 0)
            try:
                one[0].send(text[one[1]:one[1] + 1])
                one[1] += 1
            except OSError:
                one[0].close()
                one[:] = connect()
        stop.wait(max(0.01, 1 - (time.monotonic() - began)))
    for one in open_:
        one[0].close()


def overload(a):
    served = lambda r: (r["requests"] - r["status_errors"]) / (r["duration_us"] / 1e6)
    lines = []
    for settings in ([], ["proxy.max_requests=64"]):
        with Stand(a.binary, settings) as stand:
            window = lambda clients: run.wrk(stand.port, stand.keyfile("allow"), a.seconds, clients, 1)
            window(64)
            rounds = [(window(64), window(128)) for _ in range(5)]
            peak, goodput = (statistics.median(served(r[n]) for r in rounds) for n in (0, 1))
            refused = sum(r["status_errors"] for _, r in rounds) / sum(r["requests"] for _, r in rounds)
            lines.append((goodput / peak, "%d answers/s with 128 clients, %d with 64, %.0f %% refused, peak memory %.1f MiB" % (
                goodput, peak, 100 * refused, stand.proxy.memory()[0])))
    print("refused beyond 64 requests: " + lines[1][1])
    verdict(lines[0][0] >= 0.9, "overload, waiting in line: " + lines[0][1] + " (bar 90 %)")


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["idle", "slowloris", "overload"])
    p.add_argument("--binary", default=os.path.join(HERE, "../target/release/keyward"))
    p.add_argument("--connections", type=int, default=10000)
    p.add_argument("--clients", type=int, default=1000)
    p.add_argument("--rate", type=int, default=500, help="good requests/s")
    p.add_argument("--seconds", type=int, default=3)
    a = p.parse_args()
    os.sched_setaffinity(0, {1})
    {"idle": idle, "slowloris": slowloris, "overload": overload}[a.what](a)


if __name__ == "__main__":
    main()
