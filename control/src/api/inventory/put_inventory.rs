//! `PutInventory`: a node's inventory.
//!
//! AWS: API_PutInventory. Deviations: the items are checked and then dropped, since nothing reads them yet. An error
//! would make the stock agent send them again and again.

use moorline_ssm::inventory::{PutInventoryRequest, PutInventoryResult};

use crate::api::{ApiResult, RequestContext};

pub(super) async fn put_inventory(
    _cx: RequestContext,
    _input: PutInventoryRequest,
) -> ApiResult<PutInventoryResult> {
    Ok(PutInventoryResult::default())
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{
        ErrorCode,
        inventory::{InventoryItem, PutInventory},
    };

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    #[tokio::test]
    async fn a_node_reports_about_itself_only() {
        let test = TestApp::new().await;
        let item = InventoryItem {
            type_name: Some("AWS:InstanceInformation".to_owned()),
            schema_version: Some("1.0".to_owned()),
            capture_time: Some("2026-11-22T00:00:00Z".to_owned()),
            ..Default::default()
        };
        let input = PutInventoryRequest {
            instance_id: Some(node_id(0).to_string()),
            items: Some(vec![item]),
        };
        test.call_as::<PutInventory>(Principal::Node(node_id(0)), input.clone())
            .await
            .unwrap();
        let error = test
            .refuse_as::<PutInventory>(Principal::Node(node_id(1)), input)
            .await;
        assert_eq!(error.code, ErrorCode::AccessDeniedException);
    }
}
