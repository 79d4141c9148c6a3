//! Associations: desired state of nodes. There are none yet; the agent's polls are answered.

mod list_instance_associations;
mod update_instance_association_status;

use moorline_ssm::association::{ListInstanceAssociations, UpdateInstanceAssociationStatus};

use super::Router;
use crate::auth::Resource;

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<ListInstanceAssociations, _, _>(
            |input| Resource::Node(input.instance_id.clone().unwrap_or_default()),
            list_instance_associations::list_instance_associations,
        )
        .on::<UpdateInstanceAssociationStatus, _, _>(
            |input| Resource::Node(input.instance_id.clone().unwrap_or_default()),
            update_instance_association_status::update_instance_association_status,
        )
}
