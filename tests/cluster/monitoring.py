#!/usr/bin/env python3
"""What is measured and who is called: docs/metrics.json against a running program, rules by promtool, each with a test that
fires and one that does not and with a page that says what to do, and a dashboard that asks for what there is.

    monitoring.py KEYWARD [--write]        --write writes docs/metrics.json anew
"""

import json
import re
import subprocess
import sys
import tempfile
import urllib.request
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[2]
FILES = ROOT / "charts/keyward/files"
CONTRACT = ROOT / "docs/metrics.json"
RUNBOOKS = ROOT / "docs/src/runbooks"
# Labels that Prometheus and Kubernetes add to every series.
ADDED = {"namespace", "job", "pod", "instance"}


def exposition(keyward):
    """/metrics of a program that has just started, as text."""
    with subprocess.Popen([keyward, "demo", "--output", "json"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True) as demo:
        try:
            addresses = json.loads(demo.stdout.readline())
            return urllib.request.urlopen(addresses["ops"] + "/metrics", timeout=10).read().decode()
        finally:
            demo.terminate()


def contract(text):
    """Names, types, what they are, labels with their values, and bounds of buckets."""
    metrics = {}
    for line in text.splitlines():
        if match := re.match(r"# (HELP|TYPE) (\S+) (.*)", line):
            metrics.setdefault(match[2], {})[match[1].lower()] = match[3]
            continue
        series, value = line.rsplit(" ", 1)
        name, _, labels = series.partition("{")
        labels = dict(re.findall(r'(\w+)="([^"]*)"', labels))
        family = name if name in metrics else re.sub(r"_(bucket|sum|count)$", "", name)
        metric = metrics[family]
        bound = labels.pop("le", None)
        if bound is not None and bound not in metric.setdefault("buckets", []):
            metric["buckets"].append(bound)
        for label, value in labels.items():
            values = metric.setdefault("labels", {}).setdefault(label, [])
            if value not in values:
                values.append(value)
    metrics["keyward_build_info"]["labels"]["version"] = ["any"]
    return metrics


def expressions(dashboard):
    """Every question of a dashboard, as Prometheus would get it."""
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            text = target["expr"]
            for variable, value in {"$__rate_interval": "5m", "$__range": "1h"}.items():
                text = text.replace(variable, value)
            yield panel["title"], re.sub(r"\$\w+", ".*", text)


def dashboard_faults(dashboard, metrics, folder):
    ids = [panel["id"] for panel in dashboard["panels"]]
    if len(ids) != len(set(ids)) or not dashboard.get("uid") or not dashboard.get("schemaVersion"):
        yield "dashboard: ids that are not unique, no uid, or no schemaVersion"
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    unknown = set(re.findall(r"\$\{?(\w+)", json.dumps(dashboard))) - variables - {"__rate_interval", "__all"}
    if unknown:
        yield f"dashboard: there are no variables {unknown}"
    asked = list(expressions(dashboard))
    for panel in dashboard["panels"]:
        if not panel.get("title") or (panel["type"] != "row" and not panel.get("description")):
            yield f"dashboard: panel {panel['id']} has no title or description"
    rules = [{"record": f"panel:{at}", "expr": text} for at, (_, text) in enumerate(asked)]
    path = Path(folder) / "dashboard.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "dashboard", "rules": rules}]}))
    done = subprocess.run(["promtool", "check", "rules", path], capture_output=True, text=True)
    if done.returncode:
        yield f"dashboard: {done.stdout}{done.stderr}"
    for title, text in asked:
        yield from (f"dashboard: {title}: {fault}" for fault in expression_faults(text, metrics))


def expression_faults(text, metrics, recorded=()):
    """Metrics, labels and values of labels that there are not."""
    for name, labels in re.findall(r"\b((?:keyward|process)_\w+)(?:\{([^}]*)\})?", re.sub(r"job:\w+", "", text)):
        family = name if name in metrics else re.sub(r"_(bucket|sum|count)$", "", name)
        if family not in metrics:
            yield f"there is no metric {name}"
            continue
        known = metrics[family].get("labels", {})
        for label, operator, value in re.findall(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"', labels or ""):
            if label in ADDED or label == "le":
                continue
            if label not in known:
                yield f"{name} has no label {label}"
                continue
            values = known[label]
            wanted = value.split("|") if "~" in operator else [re.escape(value)]
            yield from (f"{name} is never {label}={one}" for one in wanted if not any(re.fullmatch(one, v) for v in values))
    for label in re.findall(r"by \(([^)]*)\)", text):
        every = {name for metric in metrics.values() for name in metric.get("labels", {})} | ADDED | {"le"}
        yield from (f"nothing has the label {one.strip()}" for one in label.split(",") if one.strip() not in every)


def rule_faults(rules, metrics, folder):
    every = [rule for group in rules["groups"] for rule in group["rules"]]
    recorded = {rule["record"] for rule in every if "record" in rule}
    for rule in every:
        name = rule.get("record") or rule["alert"]
        yield from (f"{name}: {fault}" for fault in expression_faults(rule["expr"], metrics))
        yield from (f"{name}: nothing records {used}" for used in set(re.findall(r"job:\w+:\w+", rule["expr"])) - recorded)
    for alert in (rule for rule in every if "alert" in rule):
        name = alert["alert"]
        if alert["labels"].get("severity") not in ("critical", "warning", "info"):
            yield f"{name}: no severity"
        for part in ("summary", "description"):
            if not alert["annotations"].get(part):
                yield f"{name}: no {part}"
        if alert["annotations"]["runbook_url"] != f"https://example.com/keyward/runbooks/{name}.html" or not (RUNBOOKS / f"{name}.md").exists():
            yield f"{name}: no page docs/src/runbooks/{name}.md, or the alert does not name it"
        # promtool compares what an alert says to the letter; what it says is not what its test is about.
        del alert["annotations"]
    pages = {page.stem for page in RUNBOOKS.glob("Keyward*.md")} - {alert.get("alert") for alert in every}
    yield from (f"docs/src/runbooks/{page}.md: there is no such alert" for page in pages)
    yield from test_faults(rules, {rule["alert"]: rule for rule in every if "alert" in rule}, folder)


def test_faults(rules, alerts, folder):
    """Runs the tests; each alert has one that fires and one that does not."""
    tests = yaml.safe_load((ROOT / "tests/cluster/rules-test.yaml").read_text())
    fires = set()
    for expected in (row for test in tests["tests"] for row in test["alert_rule_test"] or []):
        fires.add(expected["alertname"])
        for one in expected["exp_alerts"]:
            one["exp_labels"] |= alerts[expected["alertname"]]["labels"]
    yield from (f"{name}: no test fires it" for name in alerts if name not in fires)
    # On a good day none does.
    tests["tests"][0]["alert_rule_test"] = [{"alertname": name, "eval_time": at, "exp_alerts": []} for name in alerts for at in ("64m", "170m")]
    (Path(folder) / "rules.yaml").write_text(yaml.safe_dump(rules))
    (Path(folder) / "test.yaml").write_text(yaml.safe_dump(tests))
    done = subprocess.run(["promtool", "test", "rules", Path(folder) / "test.yaml"], capture_output=True, text=True)
    if done.returncode:
        yield f"rules: {done.stdout}{done.stderr}"


def main():
    keyward = sys.argv[1]
    metrics = contract(exposition(keyward))
    text = json.dumps(metrics, indent=1, sort_keys=True) + "\n"
    if "--write" in sys.argv:
        CONTRACT.write_text(text)
        return
    faults = []
    if CONTRACT.read_text() != text:
        faults.append("docs/metrics.json is not what the program exposes; `make generate` writes it anew")
    with tempfile.TemporaryDirectory() as folder:
        checked = subprocess.run(["promtool", "check", "rules", FILES / "rules.yaml"], capture_output=True, text=True)
        faults += [checked.stdout + checked.stderr] if checked.returncode else []
        rules = yaml.safe_load((FILES / "rules.yaml").read_text())
        faults += rule_faults(rules, metrics, folder)
        dashboard = json.loads((FILES / "dashboard.json").read_text())
        faults += dashboard_faults(dashboard, metrics, folder)
        # A check that sees nothing wrong anywhere would be none.
        spoilt = json.loads(json.dumps(dashboard).replace("keyward_store_up", "keyward_stored_up").replace('decision=\\"denial\\"', 'decision=\\"denied\\"'))
        seen = " ".join(dashboard_faults(spoilt, metrics, folder))
        if "keyward_stored_up" not in seen or "decision=denied" not in seen:
            faults.append("nobody notices a dashboard that asks for what there is not")
    if faults:
        sys.exit("\n".join(faults))
    print(f"monitoring: {len(metrics)} metrics, {sum(len(group['rules']) for group in rules['groups'])} rules, {len(list(expressions(dashboard)))} expressions")


if __name__ == "__main__":
    main()
