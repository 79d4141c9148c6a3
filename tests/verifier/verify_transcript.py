"""A verifier of transcripts, written from docs/transcript-format.md alone.

    verify_transcript.py FILE... --keys KEYS

prints each place where something is wrong, and of several files which part of a command is missing, doubled or exchanged. Exit code: 0 intact, 1 altered, 2 unreadable.

    verify_transcript.py --cases --keys KEYS

reads many files from standard input, each as its length in decimal digits, a line feed and its bytes, and prints for each
a line of JSON: [VERDICT, [[LINE, RECORD], ...]]. Needs Python 3.8 or later and the package `cryptography`.
"""

import argparse
import base64
import functools
import hashlib
import json
import re
import sys

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

MAX_LINE = 8 * 1024 * 1024
MAX_END = 512
FAR_APART = 5 * 60 * 1000
MOST_NESTED = 127
ZEROS = "0" * 64

TIME = r"(?:0|[1-9][0-9]{0,9})\.[0-9]{6}"
NUMBER = r"(0|[1-9][0-9]{0,17})"
COUNT = r"([1-9][0-9]{0,17})"
HASH = r"([0-9a-f]{64})"
SIGNATURE = r"([0-9a-f]{128})"
CODE = re.compile(rf'\[{TIME},"([a-z])",')
EVENT = re.compile(
    rf'\[{TIME},"[a-z]","(?:[^"\\\x00-\x1f]|\\["\\/bfnrt]|\\u(?![dD][89a-fA-F])[0-9a-fA-F]{{4}})*"\]\n'
)
SEAL = re.compile(rf'\[{TIME},"s","seal {COUNT} {HASH} {HASH} {NUMBER} {SIGNATURE}"\]\n')
COUNTERSIGN = re.compile(
    rf'\[{TIME},"c","countersign {COUNT} {COUNT} {HASH} {HASH} {NUMBER} {NUMBER} ([0-9a-f]{{16}}) {SIGNATURE}"\]\n'
)
CLOSE = re.compile(
    rf'\[{TIME},"c","close {COUNT} {NUMBER} {HASH} {HASH} {NUMBER} {NUMBER} ([0-9a-f]{{16}}) (complete|cut) {SIGNATURE}"\]\n'
)
KINDS = {"Standard_Stream", "InteractiveCommands", "NonInteractiveCommands", "Port", "Command"}


class Unreadable(Exception):
    """The file is no transcript, or there are no keys."""


def key_id(key):
    return hashlib.sha256(key).hexdigest()[:16]


@functools.lru_cache(maxsize=100_000)
def is_signed(key, text, signature):
    """A cache, since many cases of a test share most of their lines."""
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(bytes.fromhex(signature), text)
    except (InvalidSignature, ValueError):
        return False
    return True


class Keys:
    def __init__(self, text):
        try:
            keys = json.loads(text)
            if keys["format"] != 1:
                raise Unreadable("the keys have another format")
            endpoint = [base64.b64decode(one["key"], validate=True) for one in keys["endpoint"]]
            nodes = [(one["node"], base64.b64decode(one["key"], validate=True)) for one in keys["nodes"]]
        except (ValueError, KeyError, TypeError) as error:
            raise Unreadable(f"the keys are none: {error}") from error
        if not endpoint and not nodes:
            raise Unreadable("the keys are none")
        self.endpoint = {key_id(key): key for key in endpoint}
        self.nodes = {(node, key_id(key)): key for node, key in nodes}


def no_constant(name):
    raise ValueError(f"JSON has no {name}")


def finite(text):
    number = float(text)
    if number in (float("inf"), float("-inf")):
        raise ValueError("this number is too large")
    return number


def whole(text):
    """Minus zero is no whole number, and one that no double comes near is none at all."""
    return finite(text) if text == "-0" or len(text) > 300 else int(text)


def read_json(text):
    """JSON as the page on the format has it: see "JSON" there."""

    def check(value, depth):
        if isinstance(value, (list, tuple)) and depth >= MOST_NESTED:
            raise ValueError("this is nested too deep")
        if isinstance(value, str):
            value.encode("utf-8")  # fails where there is half a surrogate pair
        elif isinstance(value, list):
            for one in value:
                check(one, depth + 1)
        elif isinstance(value, tuple):
            for name, one in value:
                check(name, depth)
                check(one, depth + 1)

    options = {"parse_constant": no_constant, "parse_float": finite, "parse_int": whole}
    # a member that stands twice is looked at twice
    check(json.loads(text, object_pairs_hook=tuple, **options), 0)
    return json.loads(text, **options)


def read_header(line):
    """The identifying members of the first line."""

    def is_whole(value, below):
        return type(value) is int and 0 <= value < below

    try:
        header = read_json(line.decode("utf-8"))
        ours = header["moorline"]
        is_one = (
            is_whole(header["version"], 3)
            and header["version"] == 2
            and is_whole(header["width"], 2**32)
            and is_whole(header["height"], 2**32)
            and is_whole(ours["format"], 2)
            and ours["format"] == 1
            and re.fullmatch(r"[A-Za-z0-9_.-]{1,256}", ours["id"])
            and isinstance(ours["node"], str)
            and re.fullmatch(r"[0-9a-f]{16}", ours["node_key"])
            and ours["kind"] in KINDS
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise Unreadable("the first line is no header of a transcript") from error
    if not is_one:
        raise Unreadable("the first line is no header of a transcript")
    return ours


class Verifier:
    def __init__(self, keys):
        self.keys = keys
        self.findings = []
        self.remarks = []
        self.line = 0
        # the chain of records
        self.number = 0
        self.hash = ZEROS
        self.node_millis = 0
        self.begin_record()
        self.is_behind_seal = False
        # the chain of the endpoint's lines; None when nobody knows how it goes on
        self.last = (0, ZEROS)
        self.countersigned = 0
        self.length = 0
        self.is_length_known = True
        self.endpoint_millis = 0
        self.closed = None
        # whether another recording of this command goes on
        self.continues = False

    def begin_record(self):
        self.record = hashlib.sha256(b"moorline transcript record 1\n" + bytes.fromhex(self.hash))
        self.is_open = False

    def find(self, what):
        self.findings.append((self.line, self.number + (1 if self.is_open else 0), what))

    def verify(self, lines):
        """`lines` is an iterator of bytes, each with its line feed; of the last line it may be missing."""
        self.line = 1
        header = next(lines, b"")
        if not header.endswith(b"\n") or len(header) > MAX_LINE:
            raise Unreadable("the first line is no header of a transcript")
        self.header = read_header(header)
        self.id = self.header["id"]
        self.node_key = self.keys.nodes.get((self.header["node"], self.header["node_key"]))
        self.event(header)
        if self.node_key is None:
            self.find("the keys have no such key of this node")
        for line in lines:
            self.line += 1
            if self.closed:
                self.find("this stands behind the end of the recording")
                return
            self.one(line)
        if not self.closed:
            self.line += 1
            self.find("the recording is not closed: it runs still, or its end was cut off")

    def one(self, line):
        if not line.endswith(b"\n"):
            self.event(line)
            self.find("the file ends inside this line")
            return
        try:
            text = line.decode("utf-8") if len(line) <= MAX_LINE else ""
        except UnicodeDecodeError:
            text = ""
        # a seal or countersignature is known by its code, also where its text is no UTF-8
        code = CODE.match(line[:24].decode("latin-1")) if len(line) <= MAX_LINE and line.endswith(b"]\n") else None
        if code and code[1] == "s":
            self.seal(SEAL.fullmatch(text), line)
        elif code and code[1] == "c":
            self.endpoint_line(COUNTERSIGN.fullmatch(text) or CLOSE.fullmatch(text), line)
        else:
            self.event(line)
            if not EVENT.fullmatch(text):
                self.find("this is no event line")
            elif code and code[1] == "e":
                self.continues |= goes_on(line)

    def event(self, line):
        self.record.update(line)
        self.is_open = True
        self.length += len(line)
        self.is_behind_seal = False

    def is_signed(self, key, purpose, line):
        signed = line[: line.rindex(b" ") + 1]
        signature = line[len(signed) : -3].decode("ascii")
        prefix = f"moorline transcript {purpose} 1\n{self.id}\n".encode()
        return is_signed(key, prefix + signed, signature)

    def seal(self, seal, line):
        self.length += len(line)
        if not seal or (self.node_key and not self.is_signed(self.node_key, "seal", line)):
            self.find("this seal is not the node's")
            if self.is_open:
                self.number += 1
                self.hash = self.record.hexdigest()
                self.begin_record()
            self.is_length_known = False
            self.is_behind_seal = True
            return
        number, previous, record, millis = int(seal[1]), seal[2], seal[3], int(seal[4])
        wrong = None
        if number != self.number + 1:
            wrong = f"this seal is of record {number}, not {self.number + 1}"
        elif previous != self.hash:
            wrong = "this seal follows another record"
        elif not self.is_open:
            wrong = "this record is empty"
        elif record != self.record.hexdigest():
            wrong = "the lines of this record are not those that were sealed"
        if wrong:
            self.find(wrong)
            self.is_length_known = False
        self.number, self.hash = number, record
        self.begin_record()
        self.is_behind_seal = True
        if millis < self.node_millis:
            self.remarks.append((self.line, "the node's clock went back"))
        self.node_millis = millis

    def endpoint_line(self, match, line):
        is_behind_seal, self.is_behind_seal = self.is_behind_seal, False
        key = match and self.keys.endpoint.get(match[7])
        if not match or not key or not self.is_signed(key, "countersign", line):
            self.find("this countersignature is not the endpoint's")
            self.last = None
            return
        count, number, millis, length = int(match[1]), int(match[2]), int(match[6]), int(match[5])
        closes = match.re is CLOSE
        wrong = None
        if not (is_behind_seal or closes) or number != self.number:
            wrong = "this countersignature stands in another place than behind its seal"
        elif self.last and count != self.last[0] + 1:
            wrong = f"this is countersignature {count}, not {self.last[0] + 1}"
        elif self.last and match[3] != self.last[1]:
            wrong = "this countersignature follows another one"
        elif match[4] != (self.record.hexdigest() if self.is_open else self.hash):
            wrong = "the endpoint countersigned another hash"
        elif self.is_length_known and length != self.length:
            wrong = "the endpoint countersigned another length"
        if wrong:
            self.find(wrong)
        self.last = (count, hashlib.sha256(line[:-1]).hexdigest())
        self.countersigned = number
        self.length, self.is_length_known = length, True
        self.closed = match[8] if closes else None
        if millis < self.endpoint_millis:
            self.remarks.append((self.line, "the endpoint's clock went back"))
        if is_behind_seal and abs(millis - self.node_millis) > FAR_APART:
            self.remarks.append((self.line, "the endpoint's time is far from the node's"))
        self.endpoint_millis = millis


def lines_of(data):
    """Lines end with a line feed and nothing else."""
    begin = 0
    while begin < len(data):
        end = data.find(b"\n", begin) + 1 or len(data)
        yield data[begin:end]
        begin = end


def goes_on(line):
    """Whether this event ends a part that another one follows."""
    if len(line) > MAX_END:
        return False
    try:
        event = read_json(json.loads(line)[2])
        return event["event"] == "end" and event["continues"] is True
    except (ValueError, KeyError, TypeError, RecursionError):
        return False


def judge(lines, keys):
    verifier = Verifier(keys)
    try:
        verifier.verify(lines)
    except Unreadable as error:
        return "unreadable", [], [str(error)], None
    verdict = "altered" if verifier.findings else "intact"
    return verdict, verifier.findings, verifier.remarks, verifier


def judge_parts(verifiers):
    """What is wrong among the parts of commands, each of which was verified by itself."""
    parts, wrong = {}, []
    for one in verifiers:
        if one.header["kind"] != "Command":
            continue
        words = one.id.split(".", 2)
        is_part = len(words) == 3 and words[2].isdecimal() and int(words[2]) < 2**32
        place = (".".join(words[:2]), int(words[2])) if is_part else (one.id, 1)
        if place in parts.values():
            wrong.append(f"{one.id}: this part is there twice")
        parts[one] = place
    known = {place: one for one, place in parts.items()}
    for (invocation, number), one in known.items():
        before = known.get((invocation, number - 1))
        follows = one.header.get("follows")
        if number > 1 and not before:
            wrong.append(f"{one.id}: part {number - 1} is not there")
        elif number > 1 and follows != before.hash and (follows or before.continues):
            wrong.append(f"{one.id}: it follows another recording than part {number - 1}")
        if one.continues and (invocation, number + 1) not in known:
            wrong.append(f"{one.id}: part {number + 1} is not there")
    return wrong


def judge_cases(stream, keys):
    while length := stream.readline():
        verdict, findings, _, _ = judge(lines_of(stream.read(int(length))), keys)
        print(json.dumps([verdict, [[line, record] for line, record, _ in findings]]))


def main():
    arguments = argparse.ArgumentParser(description="Verifies transcripts: exit code 0 intact, 1 altered, 2 unreadable.")
    arguments.add_argument("file", nargs="*", help="a recording, or all parts of a command")
    arguments.add_argument("--cases", action="store_true", help="judge many of standard input, for tests")
    arguments.add_argument("--keys", required=True, help="file with the public keys")
    given = arguments.parse_args()
    if not given.file and not given.cases:
        arguments.error("no file to verify")
    try:
        with open(given.keys, encoding="utf-8") as file:
            keys = Keys(file.read())
        if given.cases:
            judge_cases(sys.stdin.buffer, keys)
            return 0
        judged = []
        for name in given.file:
            with open(name, "rb") as file:
                judged.append(judge(iter(file), keys))
    except (Unreadable, OSError, UnicodeDecodeError) as error:
        given.file = [getattr(error, "filename", None) or given.keys]
        judged = [("unreadable", [], [str(error)], None)]
    code = 0
    for name, (verdict, findings, remarks, verifier) in zip(given.file, judged):
        is_cut = verifier and verifier.closed == "cut"
        print(f"{name}: {verdict}" + (" (cut: it was not recorded to the end)" if is_cut else ""))
        for line, record, what in findings:
            print(f"line {line}, record {record}: {what}")
        for remark in remarks:
            print(f"remark: {remark}")
        code = max(code, {"intact": 0, "altered": 1, "unreadable": 2}[verdict])
    wrong = judge_parts([verifier for _, _, _, verifier in judged if verifier]) if len(judged) > 1 else []
    for what in wrong:
        print(what)
    return max(code, 1) if wrong else code


if __name__ == "__main__":
    sys.exit(main())
