//! The log, a page at a time.

use moorline_ssm::audit::{ListAuditRecords, ListAuditRecordsRequest};

use crate::{error::CliError, operator::Operator};

/// Records of one page.
const PAGE: i32 = 1000;

/// Asks for one page after the other, behind the end for what comes then.
#[derive(Debug)]
pub(crate) struct Pages<'a> {
    operator: &'a Operator,
    request: ListAuditRecordsRequest,
    /// How long a page may be waited for when there is nothing more.
    pub(crate) wait_millis: Option<i32>,
}

/// Lines of the log, without line feeds.
#[derive(Debug)]
pub(crate) struct Page {
    pub(crate) records: Vec<String>,
    /// Nothing follows now.
    pub(crate) is_end: bool,
}

impl<'a> Pages<'a> {
    pub(crate) fn new(operator: &'a Operator, request: ListAuditRecordsRequest) -> Self {
        Self {
            operator,
            request: ListAuditRecordsRequest {
                max_results: Some(PAGE),
                ..request
            },
            wait_millis: None,
        }
    }

    pub(crate) async fn next(&mut self) -> Result<Page, CliError> {
        self.request.wait_millis = self.wait_millis;
        let page = self.operator.call::<ListAuditRecords>(&self.request).await?;
        self.request.next_token = Some(page.next_token.ok_or(CliError::Incomplete {
            operation: "ListAuditRecords",
            member: "NextToken",
        })?);
        Ok(Page {
            records: page.records.unwrap_or_default(),
            is_end: page.complete == Some(true),
        })
    }
}
