"""Documents with attachments, by boto3: what another version has is attached again, described, downloaded, deleted."""

import hashlib
import json
import os
import ssl
import sys
import urllib.error
import urllib.request

import boto3

ssm = boto3.client("ssm")
source = sys.argv[1]


def refused(code, call, **arguments):
    try:
        call(**arguments)
    except ssm.exceptions.ClientError as error:
        assert error.response["Error"]["Code"] == code, error
        return error.response["Error"]["Message"]
    raise AssertionError(f"{arguments} was not refused")


original = ssm.get_document(Name=source)
attachment = original["AttachmentsContent"][0]
reference = {"Key": "AttachmentReference", "Values": [f"{source}/1/{attachment['Name']}"]}
made = ssm.create_document(
    Name="Copied", DocumentType="Package", Content=original["Content"], Attachments=[reference]
)["DocumentDescription"]
assert made["AttachmentsInformation"] == [{"Name": attachment["Name"]}], made
assert made["DocumentType"] == "Package" and made["VersionName"] == "1.0", made

copied = ssm.get_document(Name="Copied", VersionName="1.0")["AttachmentsContent"][0]
assert (copied["Hash"], copied["Size"]) == (attachment["Hash"], attachment["Size"]), copied
trust = ssl.create_default_context(cafile=os.environ["AWS_CA_BUNDLE"])
with urllib.request.urlopen(copied["Url"], context=trust) as reply:
    content = reply.read()
assert hashlib.sha256(content).hexdigest() == copied["Hash"], "another file"
assert len(content) == copied["Size"], len(content)
try:
    urllib.request.urlopen(copied["Url"].replace("/v1/attachments/", "/v1/attachments/A"), context=trust)
    raise AssertionError("a guessed URL leads somewhere")
except urllib.error.HTTPError as error:
    assert error.code == 403, error

manifest = json.loads(original["Content"])
manifest["version"] = "1.1"
message = refused(
    "InvalidDocumentContent", ssm.update_document, Name="Copied", Content=json.dumps(manifest), DocumentVersion="1"
)
assert "is missing" in message, message
message = refused(
    "InvalidDocumentContent", ssm.update_document, Name="Copied", Content=json.dumps(manifest), DocumentVersion="1",
    VersionName="2.0", Attachments=[reference],
)
assert "VersionName" in message, message
updated = ssm.update_document(
    Name="Copied", Content=json.dumps(manifest), DocumentVersion="1", Attachments=[reference]
)["DocumentDescription"]
assert (updated["DocumentVersion"], updated["VersionName"]) == ("2", "1.1"), updated
described = ssm.describe_document(Name="Copied", VersionName="1.1")["Document"]
assert described["AttachmentsInformation"] == [{"Name": attachment["Name"]}], described
listed = ssm.list_documents(Filters=[{"Key": "DocumentType", "Values": ["Package"]}])["DocumentIdentifiers"]
assert sorted(document["Name"] for document in listed) == sorted(["Copied", source]), listed

# what the document loses stays with the one that has it still
ssm.delete_document(Name=source)
with urllib.request.urlopen(ssm.get_document(Name="Copied")["AttachmentsContent"][0]["Url"], context=trust) as reply:
    assert reply.read() == content
refused("InvalidDocument", ssm.send_command, DocumentName="Copied", InstanceIds=[sys.argv[2]])
print("all checks passed")
