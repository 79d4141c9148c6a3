//! Inventory: what nodes report about themselves. It is accepted and not kept yet.

mod put_inventory;

use moorline_ssm::inventory::PutInventory;

use super::Router;
use crate::auth::Resource;

pub(super) fn routes(router: Router) -> Router {
    router.on::<PutInventory, _, _>(
        |input| Resource::Node(input.instance_id.clone().unwrap_or_default()),
        put_inventory::put_inventory,
    )
}
