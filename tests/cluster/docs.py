#!/usr/bin/env python3
"""The book: its reference pages are made from the program and the contract of metrics, it is built, its links lead somewhere,
and its blocks marked `sh test` run.

    docs.py TOOLS KEYWARD [OUT]        OUT keeps the book
"""

import html.parser
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def kind(schema, definitions):
    """What an option takes, in a few words."""
    if "$ref" in schema:
        return kind(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
    if "const" in schema:
        return f"`{schema['const']}`"
    if "enum" in schema:
        return ", ".join(f"`{value}`" for value in schema["enum"])
    if either := schema.get("oneOf") or schema.get("anyOf"):
        words = [kind(one, definitions) for one in either if one.get("type") != "null"]
        return " or ".join(dict.fromkeys(words))
    if schema.get("type") == "array":
        return f"list of {kind(schema.get('items', {}), definitions)}"
    names = schema.get("type", "any")
    names = names if isinstance(names, list) else [names]
    return " or ".join({"object": "section", "string": "text", "integer": "number", "boolean": "true, false"}.get(n, n) for n in names if n != "null")


def options(schema, definitions, path=""):
    """Each option below a schema, with its path."""
    if "$ref" in schema:
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]]
    if schema.get("type") == "array" and "items" in schema:
        yield from options(schema["items"], definitions, f"{path}[]")
        return
    for one in schema.get("oneOf", []) + schema.get("anyOf", []):
        yield from options(one, definitions, path)
    for name, inner in schema.get("properties", {}).items():
        here = f"{path}.{name}" if path else name
        yield here, inner
        yield from options(inner, definitions, here)


def configuration(schema):
    definitions = schema["$defs"]
    lines = ["# Configuration\n\nEvery option, from the program's own schema (`keyward schema`). `config.example.yaml` shows them in their places. `[]` is one of a list.\n\n| option | takes | what it is |\n| --- | --- | --- |\n"]
    seen = set()
    for path, inner in options(schema, definitions):
        if path in seen:
            continue
        seen.add(path)
        referred = definitions.get(inner.get("$ref", "").rsplit("/", 1)[-1], {})
        words = (inner.get("description") or referred.get("description") or "").replace("\n", " ").replace("|", "\\|")
        lines.append(f"| `{path}` | {kind(inner, definitions)} | {words} |\n")
    if len(seen) < 50:
        raise SystemExit("docs: the schema has lost its options")
    return "".join(lines)


def metrics(contract):
    lines = ["# Metrics\n\nAt `/metrics` of the ops port, from the contract `docs/metrics.json`, which is held against the running program. Each series is there from the start. No key, path or address is ever a label.\n\n| metric | type | labels | what it is |\n| --- | --- | --- | --- |\n"]
    for name, metric in contract.items():
        labels = "<br>".join(f"`{label}`: {', '.join(values)}" for label, values in metric.get("labels", {}).items())
        lines.append(f"| `{name}` | {metric['type']} | {labels} | {metric['help']} |\n")
    lines.append("\n## Buckets\n\nIn seconds.\n\n")
    lines += [f"* `{name}`: {', '.join(metric['buckets'])}\n" for name, metric in contract.items() if "buckets" in metric]
    return "".join(lines)


class Page(html.parser.HTMLParser):
    """The links and the anchors of a page."""

    def __init__(self, text):
        super().__init__()
        self.links, self.anchors = [], set()
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        if "id" in attributes:
            self.anchors.add(attributes["id"])
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])


def dead_links(book):
    pages = {path: Page(path.read_text()) for path in book.rglob("*.html") if path.name != "toc.html"}
    if len(pages) < 20:
        yield f"the book has {len(pages)} pages"
    for path, page in pages.items():
        for link in page.links:
            if re.match(r"[a-z]+:", link):
                continue
            target, _, anchor = link.partition("#")
            leads_to = (path.parent / target).resolve() if target else path
            if not leads_to.exists():
                yield f"{path.relative_to(book)}: {link} leads nowhere"
            elif anchor and leads_to in pages and anchor not in pages[leads_to].anchors:
                yield f"{path.relative_to(book)}: {link}: there is no such place on that page"


def dead_paths(folder):
    """Files of the project and links of its other documents."""
    for page in [*folder.rglob("*.md")]:
        for path in re.findall(r"`((?:charts|deploy|docs|bench|src|tests)/[\w./-]+)`", page.read_text()):
            if not (ROOT / path).exists():
                yield f"{page.name}: there is no {path}"
    for document in [ROOT / "README.md", ROOT / "ARCHITECTURE.md", *ROOT.glob("charts/*/README.md"), *ROOT.glob("deploy/**/README.md")]:
        for link in re.findall(r"\]\(([^)#]+)", document.read_text()):
            if not re.match(r"[a-z]+:", link) and not (document.parent / link).exists():
                yield f"{document.relative_to(ROOT)}: {link} leads nowhere"


def untold_attributes(folder):
    """Attributes of spans that the page on traces does not name."""
    page = (folder / "traces.md").read_text()
    for source in ["spans", "message"]:
        code = (ROOT / f"src/telemetry/traces/{source}.rs").read_text().partition("#[cfg(test)]")[0]
        names = set(re.findall(r'(?:text|number)\(\s*"([a-z_.]+)"', code))
        if source == "spans" and len(names) < 15:
            yield "traces.md: the attributes of spans are not found any more"
        yield from (f"traces.md: there is nothing on {name}" for name in sorted(names) if f"`{name}`" not in page)


def blocks(folder):
    for page in sorted(folder.rglob("*.md")):
        for block in re.findall(r"^```sh test\n(.*?)^```", page.read_text(), re.S | re.M):
            yield page.name, block


def run_blocks(folder, keyward):
    path = f"{keyward.parent}:{os.environ['PATH']}"
    count = 0
    for name, block in blocks(folder):
        count += 1
        with tempfile.TemporaryDirectory() as place:
            done = subprocess.run(["sh", "-eu", "-c", block], cwd=place, env={"PATH": path}, capture_output=True, text=True, timeout=60)
            if done.returncode:
                yield f"{name}: {done.stdout}{done.stderr}\n{block}"
    if not count:
        yield "no block of the book is run"


def main():
    tools, keyward, *out = sys.argv[1:]
    keyward = Path(keyward).resolve()
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder) / "docs"
        shutil.copytree(ROOT / "docs", source)
        schema = json.loads(subprocess.run([keyward, "schema"], check=True, capture_output=True, text=True).stdout)
        (source / "src/configuration.md").write_text(configuration(schema))
        (source / "src/metrics.md").write_text(metrics(json.loads((source / "metrics.json").read_text())))
        book = Path(out[0]).resolve() if out else Path(folder) / "book"
        done = subprocess.run([Path(tools) / "venv/bin/mdbook", "build", source, "-d", book], capture_output=True, text=True)
        said = done.stdout + done.stderr
        faults = [said] if done.returncode or "WARN" in said or "ERROR" in said else []
        listed = set(re.findall(r"\(([\w/.-]+\.md)\)", (source / "src/SUMMARY.md").read_text()))
        faults += [f"{page}: not in SUMMARY.md" for page in map(lambda p: str(p.relative_to(source / "src")), (source / "src").rglob("*.md")) if page not in listed | {"SUMMARY.md"}]
        faults += [*dead_links(book), *dead_paths(source / "src"), *untold_attributes(source / "src"), *run_blocks(source / "src", keyward)]
        pages = len(list(book.rglob("*.html")))
    if faults:
        sys.exit("\n".join(faults))
    print(f"docs: {pages} pages")


if __name__ == "__main__":
    main()
