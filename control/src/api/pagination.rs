//! `NextToken`: opaque, bound to the list and its filters.

use std::{fmt::Debug, str::FromStr};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use moorline_ssm::ErrorCode;

use super::{ApiError, ApiResult, RequestContext};
use crate::auth::Purpose;

const MAC_LENGTH: usize = 32;

/// A list with its filters: a token made for one is of no use for another.
#[derive(Debug)]
pub(super) struct Listing<'a> {
    cx: &'a RequestContext,
    scope: String,
}

impl<'a> Listing<'a> {
    /// `filters` is whatever decides which items the list has; its `Debug` form is part of the token's seal.
    pub(super) fn new(cx: &'a RequestContext, operation: &str, filters: &dyn Debug) -> Self {
        Self {
            cx,
            scope: format!("{operation} {filters:?}"),
        }
    }

    /// The token for what comes after `position`.
    pub(super) fn token(&self, position: &str) -> String {
        let tag = self.cx.app.keys.mac(Purpose::NextToken, &self.sealed(position));
        URL_SAFE_NO_PAD.encode([&tag[..], position.as_bytes()].concat())
    }

    /// The position in a token that a client brings. Some clients send an empty one for the first page.
    pub(super) fn position(&self, next_token: Option<&str>) -> ApiResult<Option<String>> {
        match next_token {
            None | Some("") => Ok(None),
            Some(token) => self.open(token).map(Some).ok_or_else(invalid),
        }
    }

    /// The same, as what the list has for a position. It was sealed by us, but perhaps by an older release.
    pub(super) fn parsed_position<T: FromStr>(&self, next_token: Option<&str>) -> ApiResult<Option<T>> {
        let position = self.position(next_token)?;
        position
            .map(|text| text.parse().map_err(|_| invalid()))
            .transpose()
    }

    fn open(&self, token: &str) -> Option<String> {
        let bytes = URL_SAFE_NO_PAD.decode(token).ok()?;
        let (tag, position) = bytes.split_at_checked(MAC_LENGTH)?;
        let position = std::str::from_utf8(position).ok()?;
        self.cx
            .app
            .keys
            .is_mac(Purpose::NextToken, &self.sealed(position), tag)
            .then(|| position.to_owned())
    }

    /// The scope is escaped text without a NUL, so the two parts have one reading.
    fn sealed(&self, position: &str) -> Vec<u8> {
        [self.scope.as_bytes(), b"\0", position.as_bytes()].concat()
    }

    /// One page of `items`, which are in ascending order of `position`, and the token for the rest. An item that is
    /// gone meanwhile does no harm: the page goes on behind its place.
    pub(super) fn page<T>(
        &self,
        items: Vec<T>,
        position: impl Fn(&T) -> String,
        next_token: Option<&str>,
        limit: usize,
    ) -> ApiResult<(Vec<T>, Option<String>)> {
        let after = self.position(next_token)?;
        let mut rest = items
            .into_iter()
            .skip_while(|item| after.as_ref().is_some_and(|after| position(item) <= *after));
        let page: Vec<T> = rest.by_ref().take(limit.max(1)).collect();
        let more = rest
            .next()
            .and_then(|_| page.last())
            .map(|last| self.token(&position(last)));
        Ok((page, more))
    }
}

/// A page's size out of the request.
pub(super) fn limit(max_results: Option<i32>, default: usize) -> usize {
    max_results
        .and_then(|most| usize::try_from(most).ok())
        .unwrap_or(default)
}

fn invalid() -> ApiError {
    ApiError::new(
        ErrorCode::InvalidNextToken,
        "the NextToken is not one that this list has given for these filters; begin again without it",
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test_support::{TestApp, administrator};

    async fn context() -> (TestApp, RequestContext) {
        let test = TestApp::new().await;
        let cx = test.context(administrator());
        (test, cx)
    }

    fn items() -> Vec<String> {
        ["a", "b", "c", "d", "e"].map(str::to_owned).to_vec()
    }

    #[tokio::test]
    async fn pages_together_are_the_list_without_loss_or_repetition() {
        let (_test, cx) = context().await;
        let listing = Listing::new(&cx, "ListThings", &["filter"]);
        let (mut seen, mut token) = (Vec::new(), None);
        for _ in 0..3 {
            let (page, next) = listing.page(items(), String::clone, token.as_deref(), 2).unwrap();
            seen.extend(page);
            token = next;
        }
        assert_eq!((seen, token), (items(), None));
    }

    #[tokio::test]
    async fn a_page_goes_on_where_a_deleted_item_was() {
        let (_test, cx) = context().await;
        let listing = Listing::new(&cx, "ListThings", &());
        let (_, token) = listing.page(items(), String::clone, None, 2).unwrap();
        let left = items().into_iter().filter(|item| item != "b").collect();
        let (page, _) = listing.page(left, String::clone, token.as_deref(), 2).unwrap();
        assert_eq!(page, ["c", "d"]);
    }

    #[tokio::test]
    async fn a_token_is_good_for_its_own_list_and_filters_only() {
        let (_test, cx) = context().await;
        let listing = Listing::new(&cx, "ListThings", &["filter"]);
        let token = listing.token("b");
        assert_eq!(listing.position(Some(&token)).unwrap().as_deref(), Some("b"));
        assert_eq!(listing.position(Some("")).unwrap(), None);
        for other in [
            Listing::new(&cx, "ListThings", &["other"]),
            Listing::new(&cx, "ListOther", &["filter"]),
        ] {
            assert_eq!(
                other.position(Some(&token)).unwrap_err().code,
                ErrorCode::InvalidNextToken
            );
        }
        for text in ["x", "AAAA", "not base64!", &format!("{token}AAAA")] {
            assert_eq!(
                listing.position(Some(text)).unwrap_err().code,
                ErrorCode::InvalidNextToken
            );
        }
    }
}
