//! Compliance: reports of nodes. They are accepted and not kept yet.

mod put_compliance_items;

use moorline_ssm::compliance::PutComplianceItems;

use super::Router;
use crate::auth::Resource;

pub(super) fn routes(router: Router) -> Router {
    router.on::<PutComplianceItems, _, _>(
        |input| Resource::Node(input.resource_id.clone().unwrap_or_default()),
        put_compliance_items::put_compliance_items,
    )
}
