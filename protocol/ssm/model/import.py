"""Makes ssm.json from botocore's service model: documentation dropped, one operation or shape a line.

Usage: python3 protocol/ssm/model/import.py   (with botocore installed)
"""

import gzip
import json
import pathlib

import botocore

SOURCE = pathlib.Path(botocore.__file__).parent / "data/ssm/2014-11-06/service-2.json.gz"
TARGET = pathlib.Path(__file__).parent / "ssm.json"
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


def main():
    model = json.loads(gzip.decompress(SOURCE.read_bytes()))
    parts = [f'{{\n  "metadata": {json.dumps(model["metadata"], separators=(",", ":"))}']
    for section in ("operations", "shapes"):
        lines = ",\n".join(line(name, node) for name, node in sorted(model[section].items()))
        parts.append(f'  "{section}": {{\n{lines}\n  }}')
    TARGET.write_text(",\n".join(parts) + "\n}\n")
    print(f"{TARGET.name}: from botocore {botocore.__version__}")


if __name__ == "__main__":
    main()
