#!/usr/bin/env python3
"""Fine differences: all contestants run at once on one core, and take one-second windows of load in turn.

    bench/ab.py --rounds 30 --contest nginx:allow:1k --contest new:allow:1k --contest new:allow:100k \\
      --extra "new:0:$PWD/bench/keyward.sh $PWD/target/release/keyward {port} {upstream} {keys} {dir}"

run.py starts a peer anew for each round, and its windows lie seconds apart: on a shared machine that hides all below
a tenth. Here the windows that are compared touch one another, each round goes another way about, and the ratio to the
first contest is taken within a round. An idle proxy costs nothing; what it leaves in the caches is part of any real machine."""
import argparse, os, random, shutil, statistics, sys, tempfile

sys.path.insert(0, os.path.dirname(os.path.abspath(__file__)))
import run


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--contest", action="append", required=True, metavar="PEER:SCENARIO:SIZE")
    p.add_argument("--extra", action="append", default=[], metavar="NAME:PORT:COMMAND", help="as for run.py")
    p.add_argument("--rounds", type=int, default=20)
    p.add_argument("--duration", type=int, default=1, help="seconds per window")
    a = p.parse_args()
    a.connections, a.proxy_core, a.load_core = 64, 0, 1
    return a


def window(proc, port, keyfile, a):
    """CPU microseconds per request: (all, user, system)."""
    before = proc.cpu()
    n = run.wrk(port, keyfile, a.duration, a.connections, a.load_core)["requests"]
    user, system = (x - y for x, y in zip(proc.cpu(), before))
    return tuple(1e6 * x / n for x in (user + system, user, system))


def start(name, port, upstream_port, keys, extra, tmp, running):
    folder = tempfile.mkdtemp(prefix=name + "-", dir=tmp)
    os.chmod(folder, 0o755)  # nginx workers run as another user
    argv, env = run.prepare(name, folder, port, upstream_port, keys, extra)
    proc = run.Proc(argv, 0 if name != "direct" else 1, env, folder + "/log")
    running.append(proc)
    if run.wait_ready(proc, port, keys.chk["rw"][0] if keys else "x", 60) is None:
        sys.exit("%s did not start: %s" % (name, open(folder + "/log").read()[-800:]))
    return proc


def prepare_all(a, tmp, running):
    extra = {n: (int(port), cmd) for n, port, cmd in (e.split(":", 2) for e in a.extra)}
    upstream_port = run.free_port()
    start("direct", upstream_port, 0, None, {}, tmp, running)
    sets, procs, contests = {}, {}, []
    for contest in a.contest:
        name, scenario, size = contest.split(":")
        keys = sets.setdefault(size, None) or run.Keys(run.SIZES[size], tmp)
        sets[size] = keys
        if (name, size) not in procs:
            port = run.free_port()
            procs[name, size] = (start(name, port, upstream_port, keys, extra, tmp, running), port)
        contests.append((contest, *procs[name, size], os.path.join(keys.dir, scenario + ".txt")))
    return contests


def report(contests, rounds):
    first = contests[0][0]
    print("\n%-28s %8s %6s %6s %8s   ratio to %s: median, mean +- standard error" % ("contest", "us/req", "user", "sys", "best", first))
    for name, *_ in contests:
        all_, user, system = zip(*(r[name] for r in rounds))
        ratios = [r[name][0] / r[first][0] for r in rounds]
        error = statistics.stdev(ratios) / len(ratios) ** 0.5 if len(ratios) > 1 else 0
        print("%-28s %8.2f %6.2f %6.2f %8.2f   %.3f, %.3f +- %.3f" % (
            name, *(statistics.median(x) for x in (all_, user, system)), min(all_), statistics.median(ratios),
            statistics.mean(ratios), error))


def main():
    a = arguments()
    if os.geteuid() == 0:
        run.PRIO[:] = ["nice", "-n", "-10"]
    tmp = tempfile.mkdtemp(prefix="bench-")
    os.chmod(tmp, 0o755)
    running, rounds = [], []
    try:
        contests = prepare_all(a, tmp, running)
        for _, proc, port, keyfile in contests:
            window(proc, port, keyfile, a)  # warm-up
        for _ in range(a.rounds):
            rounds.append({name: window(proc, port, keyfile, a)
                           for name, proc, port, keyfile in random.sample(contests, len(contests))})
        report(contests, rounds)
    finally:
        for proc in running[::-1]:
            proc.stop()
        shutil.rmtree(tmp, ignore_errors=True)


if __name__ == "__main__":
    main()
