//! `PutComplianceItems`: a node's report on its compliance.
//!
//! AWS: API_PutComplianceItems. Deviations: the report is checked and then dropped, since nothing reads it yet. An
//! error would make the stock agent send it again and again.

use moorline_ssm::compliance::{PutComplianceItemsRequest, PutComplianceItemsResult};

use crate::api::{ApiResult, RequestContext};

pub(super) async fn put_compliance_items(
    _cx: RequestContext,
    _input: PutComplianceItemsRequest,
) -> ApiResult<PutComplianceItemsResult> {
    Ok(PutComplianceItemsResult {})
}

#[cfg(test)]
mod tests {
    use moorline_ssm::{
        EpochSeconds, ErrorCode,
        compliance::{ComplianceExecutionSummary, PutComplianceItems},
    };

    use super::*;
    use crate::{
        auth::Principal,
        test_support::{TestApp, node_id},
    };

    #[tokio::test]
    async fn a_node_reports_about_itself_only() {
        let test = TestApp::new().await;
        let input = PutComplianceItemsRequest {
            resource_id: Some(node_id(0).to_string()),
            resource_type: Some("ManagedInstance".to_owned()),
            compliance_type: Some("Association".to_owned()),
            execution_summary: Some(ComplianceExecutionSummary {
                execution_time: Some(EpochSeconds::from_millis(test.now())),
                ..Default::default()
            }),
            items: Some(Vec::new()),
            ..Default::default()
        };
        test.call_as::<PutComplianceItems>(Principal::Node(node_id(0)), input.clone())
            .await
            .unwrap();
        let error = test
            .refuse_as::<PutComplianceItems>(Principal::Node(node_id(1)), input)
            .await;
        assert_eq!(error.code, ErrorCode::AccessDeniedException);
    }
}
