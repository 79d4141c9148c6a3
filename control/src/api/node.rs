//! Managed nodes: registration, credentials, reports, the list, the end.

mod deregister_managed_instance;
mod describe_instance_information;
mod get_connection_status;
mod register_managed_instance;
mod request_managed_instance_role_token;
mod update_instance_information;
mod update_managed_instance_public_key;

use moorline_protocol::types::InstanceId;
use moorline_ssm::{
    ErrorCode,
    node::{
        DeregisterManagedInstance, DescribeInstanceInformation, GetConnectionStatus, RegisterManagedInstance,
        RequestManagedInstanceRoleToken, UpdateInstanceInformation, UpdateManagedInstancePublicKey,
    },
};

use super::{ApiError, ApiResult, Router};
use crate::{auth::Resource, log_lines::shown};

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<DeregisterManagedInstance, _, _>(
            |input| node(input.instance_id.as_ref()),
            deregister_managed_instance::deregister_managed_instance,
        )
        .on::<DescribeInstanceInformation, _, _>(
            |_| Resource::Any,
            describe_instance_information::describe_instance_information,
        )
        .on::<GetConnectionStatus, _, _>(
            |input| node(input.target.as_ref()),
            get_connection_status::get_connection_status,
        )
        .on::<RegisterManagedInstance, _, _>(
            |_| Resource::Any,
            register_managed_instance::register_managed_instance,
        )
        .on::<RequestManagedInstanceRoleToken, _, _>(
            |_| Resource::Any,
            request_managed_instance_role_token::request_managed_instance_role_token,
        )
        .on::<UpdateInstanceInformation, _, _>(
            |input| node(input.instance_id.as_ref()),
            update_instance_information::update_instance_information,
        )
        .on::<UpdateManagedInstancePublicKey, _, _>(
            |_| Resource::Any,
            update_managed_instance_public_key::update_managed_instance_public_key,
        )
}

fn node(id: Option<&String>) -> Resource {
    Resource::Node(id.cloned().unwrap_or_default())
}

/// The id in a request, which may be well-formed for AWS and still name no node of ours (`i-…`).
pub(in crate::api) fn instance_id(id: Option<&str>) -> ApiResult<InstanceId> {
    let id = id.unwrap_or_default();
    id.parse().map_err(|_| no_such_node(id))
}

pub(super) fn no_such_node(id: &str) -> ApiError {
    let shown = shown(id);
    ApiError::new(
        ErrorCode::InvalidInstanceId,
        format!("managed node {shown} is not registered here"),
    )
}
