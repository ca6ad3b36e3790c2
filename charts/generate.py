#!/usr/bin/env python3
"""Writes what in the charts follows from something else; with --check it only says what is out of date.

    charts/generate.py [--check] KEYWARD

* charts/keyward/values.yaml: what it shares with keyward-lib is copied from there, but for what is marked `@only-here`.
* values.schema.json of both: from the values and their comments (`# @schema {…}` adds to what the default tells), strict
  throughout. `config` has the schema of the program itself, `KEYWARD schema`.
* The tables in both README.md.

Needs PyYAML.
"""

import json
import re
import subprocess
import sys
from pathlib import Path

import yaml

HERE = Path(__file__).resolve().parent
BEGIN, END = "# BEGIN shared with keyward-lib (charts/generate.py copies it)\n", "# END shared\n"
TYPES = {bool: "boolean", int: "integer", str: "string", list: "array", dict: "object"}


def share(library, own):
    """A values file whose shared part is that of the library."""
    shared = [piece for piece in library.strip("\n").split("\n\n") if "# @only-here" not in piece]
    head, rest = own.split(BEGIN)
    return head + BEGIN + "\n\n".join(shared) + "\n" + END + rest.split(END)[1]


def comments(text):
    """What stands above each value: {path: (words, schema)}."""
    found, path, words, schema = {}, [], [], {}
    for line in text.splitlines():
        indent = len(line) - len(line.lstrip())
        stripped = line.strip()
        if stripped.startswith("# @schema "):
            schema = json.loads(stripped.removeprefix("# @schema "))
        elif stripped.startswith("# -- "):
            words.append(stripped.removeprefix("# -- "))
        elif match := re.match(r"([A-Za-z]\w*):", stripped):
            path = path[: indent // 2] + [match[1]]
            found.setdefault(".".join(path), (" ".join(words), schema))
            words, schema = [], {}
        elif not stripped:
            words, schema = [], {}
    return found


def schema_of(value, path, notes):
    """The schema that a default and its comment tell."""
    words, extra = notes.get(path, ("", {}))
    if extra.get("$config"):
        return {"$ref": "#/$defs/config", "description": words}
    schema = {"type": TYPES[type(value)]}
    if words:
        schema["description"] = words
    if isinstance(value, list) and "items" not in extra:
        raise SystemExit(f"{path}: a list needs `# @schema` with items")
    if isinstance(value, dict) and "additionalProperties" not in extra:
        if not value:
            raise SystemExit(f"{path}: an empty map needs `# @schema` with additionalProperties")
        schema["properties"] = {k: schema_of(v, f"{path}.{k}" if path else k, notes) for k, v in value.items()}
        schema["additionalProperties"] = False
    return schema | extra


def config_schema(keyward):
    """The program's own schema of its config, of which the chart gives what is required."""
    schema = json.loads(subprocess.run([keyward, "schema"], check=True, capture_output=True, text=True).stdout)
    definitions = schema.pop("$defs")
    for part in [schema, definitions["Proxy"], definitions["Keys"]]:
        part.pop("required", None)
    for name in ("$schema", "title"):
        schema.pop(name)
    return {"config": schema, **definitions}


def chart_schema(name, text, definitions):
    schema = schema_of(yaml.safe_load(text), "", comments(text))
    # Helm adds `global` everywhere, and gives a chart what its libraries have.
    more = {"global": {"type": "object"}}
    if name == "keyward":
        more["keyward-lib"] = {"type": "object"}
    schema["properties"] |= more
    schema = {"$schema": "http://json-schema.org/draft-07/schema#", "title": f"Values of the chart {name}"} | schema
    return json.dumps(schema | {"$defs": definitions}, indent=1, ensure_ascii=False) + "\n"


def rows(value, path, notes):
    words, extra = notes.get(path, ("", {}))
    if isinstance(value, dict) and value and not extra:
        for name, inner in value.items():
            yield from rows(inner, f"{path}.{name}" if path else name, notes)
        return
    if not words:
        raise SystemExit(f"{path}: no comment says what it is")
    default = json.dumps(value, ensure_ascii=False)
    default = f"`{default}`" if len(default) <= 60 else "see values.yaml"
    yield f"| `{path}` | {words.replace('|', chr(92) + '|')} | {default} |\n"


def table(readme, text):
    head, rest = readme.split("<!-- values -->\n")
    _, tail = rest.split("<!-- end of values -->\n")
    lines = "".join(rows(yaml.safe_load(text), "", comments(text)))
    return f"{head}<!-- values -->\n| value | what it is | default |\n| --- | --- | --- |\n{lines}<!-- end of values -->\n{tail}"


def main():
    check = "--check" in sys.argv
    keyward = [word for word in sys.argv[1:] if word != "--check"][0]
    library = (HERE / "keyward-lib/values.yaml").read_text()
    own = share(library, (HERE / "keyward/values.yaml").read_text())
    files = {HERE / "keyward/values.yaml": own}
    definitions = config_schema(keyward)
    for name, text in (("keyward-lib", library), ("keyward", own)):
        files[HERE / name / "values.schema.json"] = chart_schema(name, text, definitions)
        readme = HERE / name / "README.md"
        files[readme] = table(readme.read_text(), text)
    stale = [path for path, text in files.items() if not path.exists() or path.read_text() != text]
    for path in stale:
        if not check:
            path.write_text(files[path])
        print(f"{'out of date' if check else 'written'}: {path.relative_to(HERE.parent)}")
    if check and stale:
        sys.exit("run `make generate` and commit what it writes")


if __name__ == "__main__":
    main()
