"""Parameter Store with boto3, against the endpoint of the environment: every operation, paginator and refusal.

Every check is an assertion. It is started by tests/end_to_end/parameters.rs.
"""

import boto3
import botocore.config
import botocore.exceptions

ssm = boto3.client("ssm", config=botocore.config.Config(retries={"total_max_attempts": 1}))


def refused(code, call, **arguments):
    """Checks that a call is refused by `code`, as the exception that boto3 makes of the model."""
    try:
        call(**arguments)
    except getattr(ssm.exceptions, code, botocore.exceptions.ClientError) as error:
        assert error.response["Error"]["Code"] == code, error.response
        return
    raise AssertionError(f"{code} was expected of {arguments}")


def paged(operation, member, size, **arguments):
    pages = list(ssm.get_paginator(operation).paginate(PaginationConfig={"PageSize": size}, **arguments))
    assert all(len(page[member]) <= size for page in pages), pages
    return [item for page in pages for item in page[member]]


def main():
    made = ssm.put_parameter(
        Name="/boto/plain", Value="one", Type="String", Description="first", Tags=[{"Key": "team", "Value": "a"}]
    )
    assert (made["Version"], made["Tier"]) == (1, "Standard"), made
    assert ssm.put_parameter(Name="/boto/plain", Value="two", Overwrite=True)["Version"] == 2
    ssm.put_parameter(Name="/boto/list", Value="a,b,c", Type="StringList", Tier="Advanced")
    ssm.put_parameter(Name="/boto/deep/secret", Value="s3cret", Type="SecureString", KeyId="alias/aws/ssm")
    refused("ParameterAlreadyExists", ssm.put_parameter, Name="/boto/plain", Value="x", Type="String")
    refused(
        "HierarchyTypeMismatchException",
        ssm.put_parameter,
        Name="/boto/plain",
        Value="x",
        Type="SecureString",
        Overwrite=True,
    )

    got = ssm.get_parameter(Name="/boto/deep/secret", WithDecryption=True)["Parameter"]
    assert (got["Value"], got["Type"], got["DataType"]) == ("s3cret", "SecureString", "text"), got
    assert ssm.get_parameter(Name="/boto/deep/secret")["Parameter"]["Value"] != "s3cret"
    refused("ParameterNotFound", ssm.get_parameter, Name="/boto/none")
    refused("ParameterVersionNotFound", ssm.get_parameter, Name="/boto/plain:7")
    both = ssm.get_parameters(Names=["/boto/plain:1", "/boto/none"])
    assert [one["Value"] for one in both["Parameters"]] == ["one"], both
    assert both["Parameters"][0]["Selector"] == ":1" and both["InvalidParameters"] == ["/boto/none"], both

    labelled = ssm.label_parameter_version(Name="/boto/plain", ParameterVersion=1, Labels=["prod", "2bad"])
    assert labelled == {**labelled, "InvalidLabels": ["2bad"], "ParameterVersion": 1}, labelled
    assert ssm.get_parameter(Name="/boto/plain:prod")["Parameter"]["Value"] == "one"
    history = paged("get_parameter_history", "Parameters", 1, Name="/boto/plain")
    assert [(one["Version"], one["Value"], one["Labels"]) for one in history] == [(1, "one", ["prod"]), (2, "two", [])]
    gone = ssm.unlabel_parameter_version(Name="/boto/plain", ParameterVersion=1, Labels=["prod", "no"])
    assert (gone["RemovedLabels"], gone["InvalidLabels"]) == (["prod"], ["no"]), gone

    below = paged("get_parameters_by_path", "Parameters", 1, Path="/boto", Recursive=True, WithDecryption=True)
    assert [one["Name"] for one in below] == ["/boto/deep/secret", "/boto/list", "/boto/plain"], below
    assert below[0]["Value"] == "s3cret"
    described = paged("describe_parameters", "Parameters", 2)
    assert [one["Name"] for one in described] == [one["Name"] for one in below], described
    assert all("Value" not in one for one in described)
    by_tag = ssm.describe_parameters(ParameterFilters=[{"Key": "tag:team", "Values": ["a"]}])["Parameters"]
    assert [(one["Name"], one["Description"]) for one in by_tag] == [("/boto/plain", "first")], by_tag
    refused("InvalidNextToken", ssm.describe_parameters, NextToken="tampered")
    refused("InvalidFilterOption", ssm.describe_parameters, ParameterFilters=[{"Key": "Path", "Option": "Equals", "Values": ["/"]}])

    ssm.add_tags_to_resource(ResourceType="Parameter", ResourceId="/boto/list", Tags=[{"Key": "k", "Value": "v"}])
    ssm.remove_tags_from_resource(ResourceType="Parameter", ResourceId="/boto/list", TagKeys=["other"])
    tags = ssm.list_tags_for_resource(ResourceType="Parameter", ResourceId="/boto/list")["TagList"]
    assert tags == [{"Key": "k", "Value": "v"}], tags

    ssm.delete_parameter(Name="/boto/plain")
    refused("ParameterNotFound", ssm.delete_parameter, Name="/boto/plain")
    rest = ssm.delete_parameters(Names=["/boto/list", "/boto/deep/secret", "/boto/plain"])
    assert sorted(rest["DeletedParameters"]) == ["/boto/deep/secret", "/boto/list"], rest
    assert rest["InvalidParameters"] == ["/boto/plain"], rest
    print("all checks passed")


main()
