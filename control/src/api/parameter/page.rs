//! Pages of parameters, by name.

use super::filter::Filters;
use crate::{
    api::{ApiResult, RequestContext},
    engine::parameter::{Selected, Selector, is_below},
    store::{ParameterRow, ParameterScan},
};

/// Rows that are looked at together; values are up to 8 KiB each.
const SCAN_ROWS: i64 = 100;

/// Which parameters a list has.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    /// The path, with a slash at its end, and whether what is below its own level counts.
    pub(super) hierarchy: Option<(&'a str, bool)>,
    pub(super) filters: &'a Filters,
}

impl Choice<'_> {
    /// One page of them behind a name and, if there are more, the last name of the page. It looks at a bounded number of
    /// rows at a time.
    pub(super) async fn page(
        &self,
        cx: &RequestContext,
        after: Option<String>,
        size: usize,
    ) -> ApiResult<(Vec<(ParameterRow, Selector)>, Option<String>)> {
        let size = size.max(1);
        let mut after = after.unwrap_or_default();
        let mut chosen: Vec<(ParameterRow, Selector)> = Vec::new();
        loop {
            let scan = ParameterScan {
                // names without a slash are below the root too
                prefix: self
                    .hierarchy
                    .map_or("", |(path, _)| if path == "/" { "" } else { path }),
                after: &after,
                limit: SCAN_ROWS,
            };
            let rows = cx.app.store.parameters(scan, cx.now).await?;
            let Some(last) = rows.last() else {
                return Ok((chosen, None));
            };
            after.clone_from(&last.name);
            for row in rows {
                let Some(found) = self.version(cx, row).await? else {
                    continue;
                };
                if chosen.len() == size {
                    let more = chosen.last().map(|(last, _)| last.name.clone());
                    return Ok((chosen, more));
                }
                chosen.push(found);
            }
        }
    }

    /// The version that the list shows of a parameter, if it shows it.
    async fn version(
        &self,
        cx: &RequestContext,
        row: ParameterRow,
    ) -> ApiResult<Option<(ParameterRow, Selector)>> {
        let is_outside = self
            .hierarchy
            .is_some_and(|(path, is_recursive)| !is_below(&row.name, path, is_recursive));
        if is_outside || !self.filters.match_row(cx, &row).await? {
            return Ok(None);
        }
        let Some(labels) = self.filters.labels() else {
            return Ok(Some((row, Selector::Latest)));
        };
        for label in labels {
            let selected = Selected {
                name: row.name.clone(),
                selector: Selector::Label(label.clone()),
            };
            if let Some(row) = cx.app.store.parameter(&selected, cx.now).await? {
                return Ok(Some((row, selected.selector)));
            }
        }
        Ok(None)
    }
}
