//! Operations of the capability `audit`: the endpoint's audit log (docs/audit-log.md).

mod list_audit_records;

use moorline_ssm::audit as shapes;

use super::Router;
use crate::auth::Resource;

pub(super) fn routes(router: Router) -> Router {
    router
        .on::<shapes::ListAuditRecords, _, _>(|_| Resource::AuditLog, list_audit_records::list_audit_records)
}
