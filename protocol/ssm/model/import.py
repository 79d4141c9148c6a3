"""Makes ssm.json and kms.json from botocore's service models: documentation dropped, one operation or shape a line.

Of KMS only the operations in operations.txt keep their shapes: the rest of that service is no business of ours.

Usage: python3 protocol/ssm/model/import.py   (with botocore installed)
"""

import gzip
import json
import pathlib

import botocore

DATA = pathlib.Path(botocore.__file__).parent / "data"
HERE = pathlib.Path(__file__).parent
DROPPED = {"documentation", "http", "box", "endpoint", "idempotent"}


def strip(node, names=False):
    """Drops keywords of the format; keys that are names (of members, shapes, operations) stay."""
    if isinstance(node, list):
        return [strip(item) for item in node]
    if not isinstance(node, dict):
        return node
    kept = node if names else {key: value for key, value in node.items() if key not in DROPPED}
    return {key: strip(value, names=not names and key == "members") for key, value in kept.items()}


def line(name, node):
    return f"    {json.dumps(name)}: {json.dumps(strip(node), separators=(',', ':'))}"


def reached(shapes, names):
    """The shapes that these are made of."""
    found, waiting = set(), list(names)
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            shape = shapes[name]
            parts = [shape.get(part) for part in ("member", "key", "value")] + list(shape.get("members", {}).values())
            waiting += [part["shape"] for part in parts if part]
    return found


def only(model, wanted):
    """Leaves the names of the other operations."""
    operations = {
        name: operation if name in wanted else {"name": name} for name, operation in model["operations"].items()
    }
    ends = [
        end["shape"]
        for name in wanted
        for end in [operations[name]["input"], operations[name]["output"], *operations[name]["errors"]]
    ]
    kept = reached(model["shapes"], ends)
    shapes = {name: shape for name, shape in model["shapes"].items() if name in kept}
    return {**model, "operations": operations, "shapes": shapes}


def write(source, target, choose=lambda model: model):
    model = choose(json.loads(gzip.decompress((DATA / source / "service-2.json.gz").read_bytes())))
    parts = [f'{{\n  "metadata": {json.dumps(model["metadata"], separators=(",", ":"))}']
    for section in ("operations", "shapes"):
        lines = ",\n".join(line(name, node) for name, node in sorted(model[section].items()))
        parts.append(f'  "{section}": {{\n{lines}\n  }}')
    (HERE / target).write_text(",\n".join(parts) + "\n}\n")
    print(f"{target}: from botocore {botocore.__version__}")


def main():
    write("ssm/2014-11-06", "ssm.json")
    listed = (HERE / "operations.txt").read_text().split()
    of_kms = [word.removeprefix("TrentService.") for word in listed if word.startswith("TrentService.")]
    write("kms/2014-11-01", "kms.json", lambda model: only(model, of_kms))


if __name__ == "__main__":
    main()
