"""Commands that end in every way a command can, as an operator's program with boto3 sees them.

Arguments: the ids of a connected node, of one that never connects, and of one that is to be deregistered. The last line
of the output is a JSON object: a name for each ending, and [command id, node id, Status, StatusDetails]. It is started by
tests/end_to_end/command_statuses.rs.
"""

import json
import sys

import boto3
import botocore.config
import botocore.exceptions

NODE, AWAY, GONE = sys.argv[1:4]
ssm = boto3.client("ssm", config=botocore.config.Config(retries={"total_max_attempts": 1}))
OPEN = ("Pending", "InProgress", "Delayed", "Cancelling")
WAIT = {"Delay": 1, "MaxAttempts": 90}


def send(line, node=NODE, **more):
    parameters = {"commands": [line], "executionTimeout": [str(more.pop("execution", 60))]}
    targets = more.pop("nodes", [node])
    sent = ssm.send_command(
        InstanceIds=targets, DocumentName="AWS-RunShellScript", Parameters=parameters, **more
    )
    return sent["Command"]["CommandId"]


def invocation(command, node=NODE):
    return ssm.get_command_invocation(CommandId=command, InstanceId=node)


def wait(command, node=NODE):
    """Waits with boto3's own waiter, which fails for every end but a success."""
    try:
        ssm.get_waiter("command_executed").wait(CommandId=command, InstanceId=node, WaiterConfig=WAIT)
        succeeded = True
    except botocore.exceptions.WaiterError as error:
        # An end, and not its patience.
        assert "terminal failure state" in str(error), error
        succeeded = False
    got = invocation(command, node)
    assert got["Status"] not in OPEN, got
    assert succeeded == (got["Status"] == "Success"), got
    return got


# Those that take their time first.
late = send("true", AWAY, TimeoutSeconds=30)
timed = send("sleep 300", execution=5)
running = send("sleep 300")
undeliverable = send("true", GONE)
never = send("touch /nowhere", AWAY)
stopped = send("exit 1", nodes=[NODE, AWAY], MaxConcurrency="1", MaxErrors="0")

ssm.deregister_managed_instance(InstanceId=GONE)
ssm.cancel_command(CommandId=never)
while invocation(running)["Status"] != "InProgress":
    pass
ssm.cancel_command(CommandId=running)

# A document for another platform, on nodes that were not named.
windows = {"schemaVersion": "2.2", "mainSteps": [{"action": "aws:applications", "name": "install", "inputs": {}}]}
ssm.create_document(Name="Windows-only", DocumentType="Command", Content=json.dumps(windows))
foreign = ssm.send_command(
    Targets=[{"Key": "tag:Role", "Values": ["test"]}], DocumentName="Windows-only"
)["Command"]["CommandId"]

ends = {}


def ended(name, command, node, status, details, code):
    got = wait(command, node)
    assert got["Status"] == status and got["StatusDetails"].startswith(details), (name, got)
    assert got["ResponseCode"] == code, (name, got)
    ends[name] = [command, node, got["Status"], got["StatusDetails"]]


ended("success", send("exit 0"), NODE, "Success", "Success", 0)
ended("failed", send("exit 7"), NODE, "Failed", "Failed", 7)
ended("execution timed out", timed, NODE, "TimedOut", "ExecutionTimedOut", 137)
ended("cancelled while it ran", running, NODE, "Cancelled", "Cancelled", 137)
ended("cancelled before", never, AWAY, "Cancelled", "Cancelled", -1)
ended("undeliverable", undeliverable, GONE, "Failed", "Undeliverable", -1)
ended("invalid platform", foreign, NODE, "Failed", "InvalidPlatform", -1)
ended("terminated", stopped, AWAY, "Cancelled", "Terminated", -1)
ended("delivery timed out", late, AWAY, "TimedOut", "DeliveryTimedOut", -1)

# An invocation that does not exist, and one of a node that was not meant.
for command, node in (("11111111-2222-4333-8444-555555555555", NODE), (late, NODE)):
    try:
        invocation(command, node)
        raise AssertionError("there is no such invocation")
    except ssm.exceptions.InvocationDoesNotExist:
        pass
print(json.dumps(ends))
