"""A verifier of the audit log, written from docs/audit-log.md alone.

    verify_audit.py FILE --keys KEYS

prints each place where something is wrong. Exit code: 0 intact, 1 altered, 2 unreadable.

    verify_audit.py --cases --keys KEYS

reads many files from standard input, each as its length in decimal digits, a line feed and its bytes, and prints for
each a line of JSON: [VERDICT, [LINE, ...]]. Needs Python 3.8 or later and the package `cryptography`.
"""

import argparse
import base64
import datetime
import functools
import hashlib
import json
import re
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MOST_BYTES = 524288
ZEROS = "0" * 64
HEAD = re.compile(
    r'\{"index":(0|[1-9][0-9]{0,17}),"previous":"([0-9a-f]{64})",'
    r'"time":"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{3})Z",',
    re.ASCII,
)
CHECKPOINT = re.compile(r'"checkpoint":"([0-9a-f]{16})","signature":"([0-9a-f]{128})"\}\n', re.ASCII)
SMALLEST, LARGEST = -(2**63), 2**64 - 1
KINDS = ("operator", "node", "anonymous", "endpoint")


class NoForm(Exception):
    pass


class Unreadable(Exception):
    pass


def unique(pairs):
    members = dict(pairs)
    if len(members) != len(pairs):
        raise NoForm("a member stands there twice")
    return members


def integer(digits):
    number = int(digits)
    if not SMALLEST <= number <= LARGEST or str(number) != digits:
        raise NoForm("a number is no integer of the log")
    return number


def no_number(text):
    raise NoForm("a number is no integer")


def is_text(value):
    return isinstance(value, str)


def is_object(value):
    return isinstance(value, dict)


TYPES = {
    "event": is_text,
    "by": lambda by: is_object(by)
    and by.get("type") in KINDS
    and is_text(by.get("name", ""))
    and is_text(by.get("access_key", "")),
    "peer": is_text,
    "user_agent": is_text,
    "operation": is_text,
    "read_only": lambda value: isinstance(value, bool),
    "parameters": is_object,
    "nodes": lambda nodes: isinstance(nodes, list) and all(map(is_text, nodes)),
    "session": is_text,
    "command": is_text,
    "result": is_text,
    "message": is_text,
    "request_id": is_text,
    "count": lambda value: isinstance(value, int) and not isinstance(value, bool) and value >= 0,
    "details": is_object,
}


def check_event(text):
    try:
        members = json.loads(
            text, object_pairs_hook=unique, parse_int=integer, parse_float=no_number, parse_constant=no_number
        )
        spelt = json.dumps(members, ensure_ascii=False, separators=(",", ":"))
        spelt.encode("utf-8")
    except (ValueError, RecursionError) as error:
        raise NoForm(str(error)) from None
    if spelt + "\n" != text:
        raise NoForm("it has another spelling")
    if "event" not in members or "by" not in members:
        raise NoForm("it is no event")
    for name, is_right in TYPES.items():
        if name in members and not is_right(members[name]):
            raise NoForm(f"{name} has another type")


class Line:
    """Reads one line, with its line feed."""

    def __init__(self, line):
        if len(line) > MOST_BYTES:
            raise NoForm("it is too long")
        if not line.endswith(b"\n"):
            raise NoForm("no line feed ends it")
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise NoForm("it is no UTF-8") from None
        head = HEAD.match(text)
        if not head:
            raise NoForm("it does not begin as a line does")
        self.index, self.previous = int(head[1]), head[2]
        try:
            if datetime.datetime.strptime(head[3], "%Y-%m-%dT%H:%M:%S.%f").year < 1970:
                raise ValueError
        except ValueError:
            raise NoForm("its time does not exist") from None
        self.key = None
        checkpoint = CHECKPOINT.fullmatch(text, head.end())
        if checkpoint:
            self.key, self.signature = checkpoint[1], bytes.fromhex(checkpoint[2])
            self.signed = b"moorline audit checkpoint 1\n" + line[: line.rindex(b'"signature"')]
        else:
            check_event(text)


@functools.lru_cache(maxsize=65536)
def has_signed(key, signature, signed):
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, signed)
        return True
    except InvalidSignature:
        return False


@functools.lru_cache(maxsize=65536)
def read_line(line):
    try:
        return Line(line), ""
    except NoForm as error:
        return None, str(error)


def hash_of(line):
    return hashlib.sha256(b"moorline audit record 1\n" + line).hexdigest()


def verify(log, keys):
    """Returns the findings as pairs of line and text."""
    findings = []
    number, expected, previous, signed, has_form = 0, 1, ZEROS, 0, False
    ends_signed = False
    for line in re.findall(rb"[^\n]*\n|[^\n]+", log):
        number += 1
        ends_signed = False
        read, why = read_line(line)
        if read is None:
            findings.append((number, f"it is no line of an audit log: {why}"))
            expected += 1
            previous = hash_of(line) if len(line) <= MOST_BYTES else None
            continue
        has_form = True
        if read.index != expected:
            findings.append((number, f"it is record {read.index} where record {expected} belongs"))
        if read.previous != previous:
            findings.append((number, "it was written behind another line"))
        expected, previous = read.index + 1, hash_of(line)
        if read.key is None:
            continue
        if read.key not in keys:
            findings.append((number, f"its key {read.key} is none of the endpoint's"))
        elif has_signed(keys[read.key], read.signature, read.signed):
            signed, ends_signed = read.index, True
        else:
            findings.append((number, f"its signature is not that of key {read.key}"))
    if not ends_signed:
        findings.append((number, f"nobody has signed what stands behind record {signed}"))
    if not has_form:
        raise Unreadable("no line of it is of an audit log")
    return findings


def read_keys(path):
    try:
        with open(path, "rb") as file:
            told = json.load(file)
        if told["format"] != 1:
            raise ValueError("another format")
        keys = {}
        for entry in told["endpoint"]:
            key = base64.b64decode(entry["key"], validate=True)
            if len(key) != 32 or hashlib.sha256(key).hexdigest()[:16] != entry["id"]:
                raise ValueError("an id is not that of its key")
            keys[entry["id"]] = key
        return keys
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Unreadable(f"the keys cannot be used: {error}") from None


def judge(log, keys):
    try:
        findings = verify(log, keys)
    except Unreadable as error:
        return "unreadable", [(0, str(error))]
    return ("altered" if findings else "intact"), findings


def cases(keys):
    source = sys.stdin.buffer
    while True:
        length = source.readline()
        if not length:
            return
        verdict, findings = judge(source.read(int(length)), keys)
        print(json.dumps([verdict, [] if verdict == "unreadable" else [line for line, _ in findings]]))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("file", nargs="?")
    parser.add_argument("--cases", action="store_true")
    parser.add_argument("--keys", required=True)
    arguments = parser.parse_args()
    try:
        keys = read_keys(arguments.keys)
        if arguments.cases:
            cases(keys)
            return 0
        with open(arguments.file, "rb") as file:
            log = file.read()
    except (OSError, Unreadable) as error:
        print(f"unreadable: {error}")
        return 2
    verdict, findings = judge(log, keys)
    for line, text in findings:
        print(f"line {line}: {text}")
    print(verdict)
    return {"intact": 0, "altered": 1, "unreadable": 2}[verdict]


if __name__ == "__main__":
    sys.exit(main())
