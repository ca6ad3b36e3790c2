#!/usr/bin/env python3
"""What Keyward does when clients misbehave, or come in numbers. Loopback only; each run has a fixed length.

    bench/edge.py idle [--connections 10000]   memory of connections that were used once and then wait
    bench/edge.py slowloris [--clients 1000]   good requests' waiting time while others send a byte of a head each second
    bench/edge.py overload                     answers of the upstream per second at twice as many clients as bring it to its peak,
                                               waiting in line, and (without a bar) refused beyond max_requests and coming back at once
    bench/edge.py open [--places 64]           the same under an open load, which does not wait for answers: requests at a fixed mean rate, as
                                               many as the upstream can answer and twice that; then (without a bar) as Keyward itself can with a tenth of a core

--binary names the program; the default is target/release/keyward. A run ends with exit code 1 where its bar is missed."""
import argparse, asyncio, os, shutil, signal, socket, statistics, subprocess, sys, tempfile, threading, time

HERE = os.path.dirname(os.path.abspath(__file__))
sys.path.insert(0, HERE)
import run


class Stand:
    """An upstream and Keyward in front of it, with 1,000 keys. With places, the upstream has so many, and takes SERVICE for each request."""
    def __init__(self, binary, settings, places=None):
        self.tmp = tempfile.mkdtemp(prefix="edge-")
        self.running = []
        self.keys = run.Keys(1000, self.tmp)
        upstream, self.port = run.free_port(), run.free_port()
        argv, env = run.prepare("direct", self.folder("direct"), upstream, 0, None, {})
        if places:
            argv = [sys.executable, os.path.abspath(__file__), "upstream", "--port", str(upstream), "--places", str(places)]
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


class Places(asyncio.Protocol):
    """One connection of an upstream that has so many places and takes so long for each request; what finds no place waits for one."""
    taken, waiting = 0, []

    def __init__(self, places):
        self.places, self.unread = places, b""

    def connection_made(self, transport):
        self.transport = transport

    def data_received(self, data):
        self.unread += data
        while b"\r\n\r\n" in self.unread:
            self.unread = self.unread.partition(b"\r\n\r\n")[2]
            if Places.taken < self.places:
                self.begin()
            else:
                Places.waiting.append(self)

    def begin(self):
        Places.taken += 1
        asyncio.get_running_loop().call_later(SERVICE, self.end)

    def end(self):
        self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/xml\r\nContent-Length: 5\r\n\r\n<ok/>")
        Places.taken -= 1
        if Places.waiting:
            Places.waiting.pop(0).begin()


SERVICE = 0.05


def upstream(a):
    async def serve():
        server = await asyncio.get_running_loop().create_server(lambda: Places(a.places), "127.0.0.1", a.port, backlog=4096)
        await server.serve_forever()
    asyncio.run(serve())


def open_load(a):
    capacity = a.places / SERVICE
    with Stand(a.binary, ["proxy.max_requests=%d" % a.places], a.places) as stand:
        # Enough connections that a request that is due finds one, also where each is kept waiting for a service.
        (peak, goodput), told = at_once_and_twice(stand, capacity, int(capacity * 0.4), a.seconds)
        rounds_refused = told["refused"] == told["status_errors"] == told["refused_retry_after"] and told["socket_errors"] == 0
        at_once = told["refused_p50_us"] < SERVICE * 1e6 / 10
        holds = goodput >= 0.9 * peak and rounds_refused and at_once and told["memory"] < 64
        text = "open load, %d places of 50 ms: %s" % (a.places, describe(peak, goodput, told))
    for settings in (["proxy.max_requests=64"], []):
        with Stand(a.binary, settings) as stand, Quota(stand.proxy.p.pid):
            (peak, goodput), told = at_once_and_twice(stand, most(stand, a.seconds), 512, a.seconds)
            print("open load, Keyward with a tenth of a core, %s: %s" % (settings[0] if settings else "no max_requests", describe(peak, goodput, told)))
    verdict(holds, text + " (bars 90 %, refused within 5 ms, 64 MiB)")


class Quota:
    """Lets a process run for 2 ms of every 20, as a container with a quota of CPU time: the load's core would be full before Keyward's is."""
    def __init__(self, pid):
        self.pid, self.over = pid, threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self):
        while not self.over.is_set():
            os.kill(self.pid, signal.SIGSTOP)
            time.sleep(0.018)
            os.kill(self.pid, signal.SIGCONT)
            time.sleep(0.002)

    def __enter__(self):
        self.thread.start()

    def __exit__(self, *_):
        self.over.set()
        self.thread.join()


def most(stand, seconds):
    """The most answers per second that any rate of requests brings."""
    def served(rate):
        r = run.open_load(stand.port, stand.keyfile("allow"), seconds, 512, 1, rate)
        return (r["requests"] - r["status_errors"]) / (r["duration_us"] / 1e6)
    return max(served(1000 * 1.4 ** step) for step in range(8))


def at_once_and_twice(stand, rate, connections, seconds):
    """Answers per second at a rate and at twice that, and what else was seen at twice: medians of three windows."""
    def window(rate):
        before, began = sum(stand.proxy.cpu()), time.monotonic()
        r = run.open_load(stand.port, stand.keyfile("allow"), seconds, connections, 1, rate)
        r["busy"] = (sum(stand.proxy.cpu()) - before) / (time.monotonic() - began)
        return r
    window(rate)
    served = lambda r: (r["requests"] - r["status_errors"]) / (r["duration_us"] / 1e6)
    rounds = [(window(rate), window(2 * rate)) for _ in range(3)]
    twice = sorted((r for _, r in rounds), key=served)[1]
    twice.update(memory=stand.proxy.memory()[0], rate=rate)
    return [statistics.median(served(r[n]) for r in rounds) for n in (0, 1)], twice


def describe(peak, goodput, told):
    return "%d answers/s at %d requests/s, %d at twice that (%.0f %%); %d %% refused, half of them within %.1f ms, 99 %% within %.1f ms; %d %% of a core; peak memory %.1f MiB" % (
        peak, told["rate"], goodput, 100 * goodput / peak, 100 * told["refused"] / max(1, told["requests"]),
        told["refused_p50_us"] / 1e3, told["refused_p99_us"] / 1e3, 100 * told["busy"], told["memory"])


def main():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("what", choices=["idle", "slowloris", "overload", "open", "upstream"])
    p.add_argument("--binary", default=os.path.join(HERE, "../target/release/keyward"))
    p.add_argument("--connections", type=int, default=10000)
    p.add_argument("--clients", type=int, default=1000)
    p.add_argument("--places", type=int, default=64, help="of an upstream that takes 50 ms for each request")
    p.add_argument("--port", type=int, help="of that upstream, where it is all that is wanted")
    p.add_argument("--rate", type=int, default=500, help="good requests/s")
    p.add_argument("--seconds", type=int, default=3)
    a = p.parse_args()
    os.sched_setaffinity(0, {1})
    {"idle": idle, "slowloris": slowloris, "overload": overload, "open": open_load, "upstream": upstream}[a.what](a)


if __name__ == "__main__":
    main()
