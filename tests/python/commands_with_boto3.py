"""Run Command with boto3, against the endpoint of the environment: targets, limits, cancellation, lists and refusals.

Arguments: the ids of two connected nodes with the tag Role=test and of a node that was deregistered. Every check is an
assertion. It is started by tests/end_to_end/boto3.rs.
"""

import sys
import time

import boto3
import botocore.config
import botocore.exceptions

FIRST, SECOND, GONE = sys.argv[1:]
# the client's own validation is off, so that the endpoint's is seen
ssm = boto3.client(
    "ssm", config=botocore.config.Config(retries={"total_max_attempts": 1}, parameter_validation=False)
)
BY_TAG = [{"Key": "tag:Role", "Values": ["test", "other"]}]


def refused(code, call, **arguments):
    """The message with which a call is refused by `code`."""
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        return error.response["Error"]["Message"]
    raise AssertionError(f"{code} was expected of {arguments}")


def send(script="true", **arguments):
    return ssm.send_command(
        DocumentName="AWS-RunShellScript", Parameters={"commands": [script]}, **arguments
    )["Command"]


def ended(command):
    deadline = time.monotonic() + 60
    while True:
        listed = ssm.list_commands(CommandId=command)["Commands"][0]
        if listed["Status"] in ("Success", "Failed", "Cancelled", "TimedOut"):
            return listed
        assert time.monotonic() < deadline, listed
        time.sleep(0.05)


def invocations(command, **arguments):
    pages = ssm.get_paginator("list_command_invocations").paginate(
        CommandId=command, PaginationConfig={"PageSize": 1}, **arguments
    )
    return {item["InstanceId"]: item for page in pages for item in page["CommandInvocations"]}


def targets():
    both = send(Targets=BY_TAG, MaxConcurrency="50%", MaxErrors="10%")
    assert (both["TargetCount"], both["MaxConcurrency"], both["MaxErrors"]) == (2, "50%", "10%"), both
    listed = ended(both["CommandId"])
    assert (listed["StatusDetails"], listed["CompletedCount"], listed["ErrorCount"]) == ("Success", 2, 0), listed
    for node in (FIRST, SECOND):
        ssm.get_waiter("command_executed").wait(CommandId=both["CommandId"], InstanceId=node)
    narrowed = send(Targets=BY_TAG + [{"Key": "InstanceIds", "Values": [SECOND]}, {"Key": "tag-key", "Values": ["Role"]}])
    assert narrowed["TargetCount"] == 1 and list(invocations(narrowed["CommandId"])) == [SECOND], narrowed
    nobody = send(Targets=[{"Key": "tag:Role", "Values": ["nobody"]}])
    assert (nobody["Status"], nobody["StatusDetails"], nobody["TargetCount"]) == ("Success", "NoInstancesInTag", 0), nobody


def statuses():
    failed = send("exit 7", Targets=BY_TAG, MaxConcurrency="1")["CommandId"]
    listed = ended(failed)
    assert (listed["Status"], listed["ErrorCount"], listed["CompletedCount"]) == ("Failed", 1, 2), listed
    details = sorted(item["StatusDetails"] for item in invocations(failed).values())
    assert details == ["Failed", "Terminated"], details
    with_steps = invocations(failed, Details=True, Filters=[{"key": "Status", "value": "Failed"}])
    (only,) = with_steps.values()
    assert [(step["ResponseCode"], step["Status"]) for step in only["CommandPlugins"]] == [(7, "Failed")], only

    slow = send("sleep 1000", Targets=BY_TAG)["CommandId"]
    deadline = time.monotonic() + 60
    while {item["Status"] for item in invocations(slow).values()} != {"InProgress"}:
        assert time.monotonic() < deadline, "it does not start"
        time.sleep(0.05)
    ssm.cancel_command(CommandId=slow, InstanceIds=[FIRST])
    while invocations(slow)[FIRST]["StatusDetails"] != "Cancelled":
        assert time.monotonic() < deadline, "it is not cancelled"
        time.sleep(0.05)
    assert invocations(slow)[SECOND]["Status"] == "InProgress"
    assert list(invocations(slow, InstanceId=SECOND)) == [SECOND]
    executing = ssm.list_commands(Filters=[{"key": "ExecutionStage", "value": "Executing"}])["Commands"]
    assert [command["CommandId"] for command in executing] == [slow], executing
    ssm.cancel_command(CommandId=slow)
    assert ended(slow)["Status"] == "Cancelled"
    ssm.cancel_command(CommandId=slow)  # again: nothing is left to cancel


def pages_while_things_change():
    """Commands that come while a list is read are not in it, and move nothing."""
    before = [send(InstanceIds=[FIRST])["CommandId"] for _ in range(5)]
    seen, token = [], {}
    while True:
        page = ssm.list_commands(MaxResults=2, Filters=[{"key": "DocumentName", "value": "AWS-RunShellScript"}], **token)
        seen += [command["CommandId"] for command in page["Commands"]]
        if not page.get("NextToken"):
            break
        token = {"NextToken": page["NextToken"]}
        send(InstanceIds=[FIRST])
    assert seen[:5] == before[::-1] and len(seen) == len(set(seen)), (seen, before)


def refusals():
    run = dict(DocumentName="AWS-RunShellScript", Parameters={"commands": ["true"]})
    refused("InvalidInstanceId", ssm.send_command, **run, InstanceIds=[FIRST, GONE])
    refused("InvalidInstanceId", ssm.send_command, **run, Targets=[{"Key": "InstanceIds", "Values": [GONE]}])
    refused("DuplicateInstanceId", ssm.send_command, **run, InstanceIds=[FIRST, FIRST])
    for wrong in ("0", "0%", "101%", "1.5%", "-1", "all", ""):
        refused("ValidationException", ssm.send_command, **run, InstanceIds=[FIRST], MaxConcurrency=wrong)
    for wrong in ("101%", "-1", "1.5", "%"):
        refused("ValidationException", ssm.send_command, **run, InstanceIds=[FIRST], MaxErrors=wrong)
    tag = {"Key": "tag:Role", "Values": ["test"]}
    refused("ValidationException", ssm.send_command, **run, Targets=[tag] * 6)
    refused("ValidationException", ssm.send_command, **run, Targets=[{**tag, "Values": ["x"] * 51}])
    refused("ValidationException", ssm.send_command, **run, InstanceIds=[f"mi-{n:017x}" for n in range(51)])
    refused("ValidationException", ssm.send_command, **run, Targets=[tag], InstanceIds=[FIRST])
    refused("ValidationException", ssm.send_command, **run)
    refused("ValidationException", ssm.send_command, **run, InstanceIds=[FIRST], TimeoutSeconds=29)
    refused("ValidationException", ssm.send_command, **run, Targets=[{"Key": "Role", "Values": ["test"]}])

    command = send(InstanceIds=[FIRST])["CommandId"]
    ended(command)
    refused("InvalidInstanceId", ssm.cancel_command, CommandId=command, InstanceIds=[SECOND])
    refused("DuplicateInstanceId", ssm.cancel_command, CommandId=command, InstanceIds=[FIRST, FIRST])
    refused("InvalidCommandId", ssm.cancel_command, CommandId="00000000-0000-0000-0000-000000000000")
    refused("InvalidPluginName", ssm.get_command_invocation, CommandId=command, InstanceId=FIRST, PluginName="none")
    refused("InvocationDoesNotExist", ssm.get_command_invocation, CommandId=command, InstanceId=SECOND)
    refused("InvalidCommandId", ssm.list_commands, CommandId="00000000-0000-0000-0000-000000000000")
    refused("ValidationException", ssm.list_commands, Filters=[{"key": "Status", "value": "Done"}])
    token = ssm.list_commands(MaxResults=1)["NextToken"]
    for tampered in (token[:-4], token[:-4] + "AAAA", token + "AAAA", "AAAA", "none"):
        refused("InvalidNextToken", ssm.list_commands, MaxResults=1, NextToken=tampered)
    # the token of another list, and of the same list with other filters
    refused("InvalidNextToken", ssm.list_command_invocations, MaxResults=1, NextToken=token)
    filters = [{"key": "Status", "value": "Success"}]
    refused("InvalidNextToken", ssm.list_commands, MaxResults=1, NextToken=token, Filters=filters)


def main():
    targets()
    statuses()
    pages_while_things_change()
    refusals()
    print("all checks passed")


main()
