"""An operator's program with boto3, against the endpoint of the environment; argument: the id of a connected node.

Every check is an assertion. It is started by tests/end_to_end/boto3.rs.
"""

import json
import sys
import time

import boto3
import botocore.config
import botocore.exceptions

NODE = sys.argv[1]
ONCE = botocore.config.Config(retries={"total_max_attempts": 1})
ssm = boto3.client("ssm", config=ONCE)


def refused(code, call, **arguments):
    """The message with which a call is refused by `code`."""
    try:
        call(**arguments)
    except botocore.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == code, error.response
        return error.response["Error"]["Message"]
    raise AssertionError(f"{code} was expected of {arguments}")


def nodes_and_pages():
    pages = ssm.get_paginator("describe_instance_information").paginate()
    nodes = [node for page in pages for node in page["InstanceInformationList"]]
    assert [node["InstanceId"] for node in nodes] == [NODE], nodes
    assert nodes[0]["PingStatus"] == "Online", nodes
    assert ssm.get_connection_status(Target=NODE)["Status"] == "connected"

    made = {ssm.create_activation(IamRole="r", Description=str(n))["ActivationId"] for n in range(3)}
    pages = list(ssm.get_paginator("describe_activations").paginate(PaginationConfig={"PageSize": 1}))
    seen = [activation["ActivationId"] for page in pages for activation in page["ActivationList"]]
    assert made < set(seen) and len(seen) == len(set(seen)) == 4, seen
    assert all(len(page["ActivationList"]) <= 1 for page in pages)
    for activation in made:
        ssm.delete_activation(ActivationId=activation)
    refused("InvalidActivation", ssm.delete_activation, ActivationId=next(iter(made)))


def commands():
    sent = ssm.send_command(
        InstanceIds=[NODE],
        DocumentName="AWS-RunShellScript",
        Parameters={"commands": ["echo out", "echo err >&2"]},
        Comment="boto3",
    )["Command"]
    assert sent["Status"] in ("Pending", "InProgress", "Success"), sent
    command = sent["CommandId"]
    waiter = ssm.get_waiter("command_executed")
    waiter.wait(CommandId=command, InstanceId=NODE, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
    invocation = ssm.get_command_invocation(CommandId=command, InstanceId=NODE)
    assert invocation["StandardOutputContent"] == "out\n", invocation
    assert invocation["StandardErrorContent"] == "err\n", invocation
    assert invocation["ResponseCode"] == 0, invocation

    failed = ssm.send_command(
        Targets=[{"Key": "InstanceIds", "Values": [NODE]}],
        DocumentName="AWS-RunShellScript",
        Parameters={"commands": ["exit 9"]},
    )["Command"]["CommandId"]
    try:
        waiter.wait(CommandId=failed, InstanceId=NODE, WaiterConfig={"Delay": 1, "MaxAttempts": 30})
        raise AssertionError("the waiter did not notice the failure")
    except botocore.exceptions.WaiterError as error:
        assert error.last_response["ResponseCode"] == 9, error.last_response

    for operation, member in (("list_commands", "Commands"), ("list_command_invocations", "CommandInvocations")):
        pages = list(ssm.get_paginator(operation).paginate(PaginationConfig={"PageSize": 1}))
        listed = [item["CommandId"] for page in pages for item in page[member]]
        assert listed == [failed, command], (operation, listed)
    filters = [{"key": "Status", "value": "Failed"}]
    assert [c["CommandId"] for c in ssm.list_commands(Filters=filters)["Commands"]] == [failed]

    slow = ssm.send_command(
        InstanceIds=[NODE], DocumentName="AWS-RunShellScript", Parameters={"commands": ["sleep 1000"]}
    )["Command"]["CommandId"]
    ssm.cancel_command(CommandId=slow)
    deadline = time.monotonic() + 60
    while ssm.list_commands(CommandId=slow)["Commands"][0]["Status"] != "Cancelled":
        assert time.monotonic() < deadline, "the command was not cancelled"
        time.sleep(0.1)
    # "never existed" and "exists, but not on this node" are told apart as the service does
    refused(
        "InvocationDoesNotExist",
        ssm.get_command_invocation,
        CommandId="00000000-0000-0000-0000-000000000000",
        InstanceId=NODE,
    )


def documents():
    content = {
        "schemaVersion": "2.2",
        "parameters": {"Word": {"type": "String", "allowedPattern": "^[a-z]+$"}},
        "mainSteps": [{"action": "aws:runShellScript", "name": "s", "inputs": {"runCommand": ["echo {{Word}}"]}}],
    }
    for number in range(3):
        ssm.create_document(Name=f"Boto-{number}", DocumentType="Command", Content=json.dumps(content))
    pages = ssm.get_paginator("list_documents").paginate(
        Filters=[{"Key": "Owner", "Values": ["Self"]}], PaginationConfig={"PageSize": 2}
    )
    names = [document["Name"] for page in pages for document in page["DocumentIdentifiers"]]
    assert sorted(names) == ["Boto-0", "Boto-1", "Boto-2"], names
    assert ssm.describe_document(Name="Boto-0")["Document"]["Status"] == "Active"
    assert json.loads(ssm.get_document(Name="Boto-0")["Content"]) == content
    update = dict(Name="Boto-1", DocumentVersion="$LATEST")
    newer = dict(content, description="newer")
    updated = ssm.update_document(**update, Content=json.dumps(newer))["DocumentDescription"]
    assert (updated["DocumentVersion"], updated["DefaultVersion"]) == ("2", "1"), updated
    refused("DuplicateDocumentContent", ssm.update_document, **update, Content=json.dumps(newer))
    pages = ssm.get_paginator("list_document_versions").paginate(Name="Boto-1", PaginationConfig={"PageSize": 1})
    versions = [version["DocumentVersion"] for page in pages for version in page["DocumentVersions"]]
    assert versions == ["2", "1"], versions
    ssm.update_document_default_version(Name="Boto-1", DocumentVersion="2")
    assert json.loads(ssm.get_document(Name="Boto-1")["Content"]) == newer
    refused("InvalidDocumentOperation", ssm.delete_document, Name="Boto-1", DocumentVersion="2")
    builtin = dict(Name="AWS-RunShellScript", DocumentVersion="$LATEST", Content=json.dumps(content))
    refused("InvalidDocumentOperation", ssm.update_document, **builtin)
    send = dict(DocumentName="Boto-0", InstanceIds=[NODE])
    message = refused("InvalidParameters", ssm.send_command, **send, Parameters={"Word": ["UPPER"]})
    assert "Word" in message, message
    message = refused("InvalidParameters", ssm.send_command, **send, Parameters={"Wrod": ["lower"]})
    assert "Wrod" in message, message
    refused("InvalidDocumentContent", ssm.create_document, Name="Boto-bad", Content="{")
    unknown = json.dumps(dict(content, schemaVersion="9.9"))
    message = refused("InvalidDocumentSchemaVersion", ssm.create_document, Name="Boto-bad", Content=unknown)
    assert "9.9" in message, message
    for name in names:
        ssm.delete_document(Name=name)
    refused("InvalidDocument", ssm.get_document, Name="Boto-0")


def sessions():
    started = ssm.start_session(Target=NODE, Reason="boto3")
    assert started["StreamUrl"].startswith("wss://"), started["StreamUrl"]
    assert len(started["TokenValue"]) <= 300
    listed = ssm.describe_sessions(State="Active")["Sessions"]
    assert [session["SessionId"] for session in listed] == [started["SessionId"]], listed
    assert ssm.terminate_session(SessionId=started["SessionId"])["SessionId"] == started["SessionId"]
    refused("TargetNotConnected", ssm.start_session, Target="mi-0123456789abcdef0")


def refusals():
    # the client's own validation is off, so that the endpoint's is seen
    loose = boto3.client("ssm", config=ONCE.merge(botocore.config.Config(parameter_validation=False)))
    message = refused("ValidationException", loose.create_activation)
    assert "iamRole" in message, message
    message = refused("ValidationException", loose.describe_instance_information, MaxResults=1)
    assert "maxResults" in message, message
    message = refused("ValidationException", loose.get_command_invocation, CommandId="x", InstanceId="nonsense")
    assert "2 validation errors" in message and "commandId" in message and "instanceId" in message, message
    # part of the published model, not of this endpoint
    refused("UnknownOperationException", ssm.describe_ops_items)

    session = boto3.session.Session()
    keys = session.get_credentials().get_frozen_credentials()
    other = boto3.client("ssm", config=ONCE, aws_access_key_id=keys.access_key, aws_secret_access_key="wrong" * 8)
    refused("InvalidSignatureException", other.list_commands)
    other = boto3.client("ssm", config=ONCE, aws_access_key_id="AKIAIOSFODNN7EXAMPLE", aws_secret_access_key="x" * 40)
    refused("UnrecognizedClientException", other.list_commands)
    boto3.client("ssm", config=ONCE, region_name="eu-west-3").list_commands()


for check in (nodes_and_pages, commands, documents, sessions, refusals):
    check()
    print(check.__name__, "passed")
print("all checks passed")
