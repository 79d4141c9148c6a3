//! The canonical form of a request, the text that is signed, and the key that signs it (AWS documentation,
//! "Create a signed AWS API request"; agent-wire §3.1).

use std::{borrow::Cow, fmt::Write};

use jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use ring::{digest, hmac};

use super::{SignableRequest, UNSIGNED_PAYLOAD};

pub(super) const ALGORITHM: &str = "AWS4-HMAC-SHA256";
/// The header that states what stands for the body in the signature.
pub(super) const CONTENT_SHA256: &str = "x-amz-content-sha256";
/// Last part of every credential scope.
pub(super) const TERMINATOR: &str = "aws4_request";
/// The one query parameter of a presigned request that is not signed.
pub(super) const QUERY_SIGNATURE: &str = "X-Amz-Signature";

/// Lower-case hex.
pub(super) fn hex(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len() * 2);
    crate::hex::write(&mut text, bytes).expect("writing to a string cannot fail");
    text
}

/// The bytes of hex text of either case.
pub(super) fn unhex(text: &str) -> Option<Vec<u8>> {
    let digit = |b: &u8| char::from(*b).to_digit(16).and_then(|d| u8::try_from(d).ok());
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs
        .iter()
        .map(|[high, low]| Some(digit(high)? << 4 | digit(low)?))
        .collect()
}

pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// `20261122T060842Z`. A time that no calendar has becomes the last one it has.
pub(super) fn amz_date(unix_millis: u64) -> String {
    let time = i64::try_from(unix_millis)
        .ok()
        .and_then(|millis| Timestamp::from_millisecond(millis).ok())
        .unwrap_or(Timestamp::MAX);
    time.strftime("%Y%m%dT%H%M%SZ").to_string()
}

/// The reverse of [`amz_date`], strict. `None` also for a time before 1970.
pub(super) fn parse_amz_date(text: &str) -> Option<u64> {
    fn number<T: TryFrom<u32>>(digits: &str) -> Option<T> {
        let all_digits = digits.bytes().all(|b| b.is_ascii_digit());
        T::try_from(digits.parse::<u32>().ok().filter(|_| all_digits)?).ok()
    }
    let shape = text.len() == 16 && text.is_ascii();
    let (date, time) = text.strip_suffix('Z').filter(|_| shape)?.split_once('T')?;
    let civil = DateTime::new(
        number(date.get(..4)?)?,
        number(date.get(4..6)?)?,
        number(date.get(6..)?)?,
        number(time.get(..2)?)?,
        number(time.get(2..4)?)?,
        number(time.get(4..)?)?,
        0,
    );
    let zoned = civil.ok()?.to_zoned(TimeZone::UTC).ok()?;
    u64::try_from(zoned.timestamp().as_millisecond()).ok()
}

/// Percent-encodes everything but RFC 3986's unreserved characters, and `keep`.
fn percent_encode(bytes: &[u8], keep: u8, out: &mut String) {
    for &byte in bytes {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') || byte == keep {
            out.push(char::from(byte));
        } else {
            write!(out, "%{byte:02X}").expect("writing to a string cannot fail");
        }
    }
}

/// Undoes percent-encoding, and `+` for a blank; a `%` that begins no code stands for itself.
pub(super) fn percent_decode(text: &str) -> Vec<u8> {
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        let code = after.get(..2).filter(|_| byte == b'%').and_then(|digits| {
            let value = unhex(std::str::from_utf8(digits).ok()?)?;
            value.first().copied()
        });
        match code {
            Some(value) => {
                decoded.push(value);
                rest = after.get(2..).unwrap_or_default();
            }
            None if byte == b'+' => decoded.push(b' '),
            None => decoded.push(byte),
        }
    }
    decoded
}

/// The decoded parameters of a query, in the order sent.
pub(super) fn query_pairs(query: &str) -> impl Iterator<Item = (Vec<u8>, Vec<u8>)> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (percent_decode(name), percent_decode(value))
    })
}

/// Path and query of a request line; an absolute URI loses its scheme and authority.
pub(super) fn split_uri(uri: &str) -> (&str, &str) {
    let local = match uri.split_once("://") {
        Some((scheme, rest)) if !scheme.contains(['/', '?']) => {
            let path = rest.find(['/', '?']).and_then(|at| rest.get(at..));
            path.unwrap_or("/")
        }
        _ => uri,
    };
    let local = local.split_once('#').map_or(local, |(before, _)| before);
    local.split_once('?').unwrap_or((local, ""))
}

/// S3 signs the path as it stands; every other service without dot segments and empty ones, and encoded once more.
fn canonical_path(path: &str, service: &str) -> String {
    let mut canonical = String::with_capacity(path.len() + 1);
    if service == "s3" {
        // already encoded by the sender: only what can never stand in a request line is encoded here
        for &byte in path.as_bytes() {
            if byte.is_ascii_graphic() {
                canonical.push(char::from(byte));
            } else {
                percent_encode(&[byte], b'/', &mut canonical);
            }
        }
    } else {
        let mut segments = Vec::new();
        for segment in path.split('/') {
            match segment {
                "" | "." => {}
                ".." => {
                    segments.pop();
                }
                other => segments.push(other),
            }
        }
        for segment in &segments {
            canonical.push('/');
            percent_encode(segment.as_bytes(), b'/', &mut canonical);
        }
        let is_folder = ["/", "/.", "/.."].iter().any(|end| path.ends_with(end));
        if is_folder && !segments.is_empty() {
            canonical.push('/');
        }
    }
    if canonical.is_empty() {
        canonical.push('/');
    }
    canonical
}

/// Sorted by encoded name, then by encoded value; without the signature of a presigned request.
fn canonical_query(query: &str) -> String {
    let mut pairs: Vec<(String, String)> = query_pairs(query)
        .filter(|(name, _)| name != QUERY_SIGNATURE.as_bytes())
        .map(|(name, value)| {
            let (mut encoded_name, mut encoded_value) = (String::new(), String::new());
            percent_encode(&name, b'-', &mut encoded_name);
            percent_encode(&value, b'-', &mut encoded_value);
            (encoded_name, encoded_value)
        })
        .collect();
    pairs.sort();
    let pairs: Vec<String> = pairs
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    pairs.join("&")
}

/// Outer blanks gone, inner runs of blanks one blank.
fn fold_value(value: &str) -> Cow<'_, str> {
    let is_blank = |c: char| matches!(c, ' ' | '\t' | '\r' | '\n');
    let value = value.trim_matches(is_blank);
    let blanks_are_single = !value.contains("  ") && !value.contains(['\t', '\r', '\n']);
    if blanks_are_single {
        return Cow::Borrowed(value);
    }
    let words: Vec<&str> = value.split(is_blank).filter(|word| !word.is_empty()).collect();
    Cow::Owned(words.join(" "))
}

/// `name:value` lines of the signed headers; several headers of one name are joined by commas in the order sent.
/// `None` when a signed header is not in the request.
fn canonical_headers(request: &SignableRequest<'_>, signed_headers: &[String]) -> Option<String> {
    let mut lines = String::new();
    for name in signed_headers {
        let values: Vec<Cow<'_, str>> = request
            .headers
            .iter()
            .filter(|(header, _)| header.eq_ignore_ascii_case(name))
            .map(|(_, value)| fold_value(value))
            .collect();
        if values.is_empty() {
            return None;
        }
        lines.push_str(name);
        lines.push(':');
        lines.push_str(&values.join(","));
        lines.push('\n');
    }
    Some(lines)
}

/// What stands for the body: its hash, or the word that the sender signs instead. Whether that word is accepted is for
/// who verifies.
fn body_hash(request: &SignableRequest<'_>) -> String {
    let says_unsigned = |(name, value): &(&str, &str)| {
        name.eq_ignore_ascii_case(CONTENT_SHA256) && value.trim() == UNSIGNED_PAYLOAD
    };
    match request.headers.iter().any(says_unsigned) {
        true => UNSIGNED_PAYLOAD.to_owned(),
        false => sha256_hex(request.body),
    }
}

/// What the text to sign is made of, besides the request.
pub(super) struct Scope<'a> {
    /// `20261122`
    pub(super) date: &'a str,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
    /// `20261122T060842Z`
    pub(super) amz_date: &'a str,
}

impl<'a> Scope<'a> {
    /// The date of the scope is that of `amz_date`.
    pub(super) fn of(amz_date: &'a str, region: &'a str, service: &'a str) -> Self {
        let date = amz_date.get(..8).unwrap_or(amz_date);
        Self {
            date,
            region,
            service,
            amz_date,
        }
    }

    /// `date/region/service/aws4_request`
    pub(super) fn credential_scope(&self) -> String {
        let Self {
            date,
            region,
            service,
            ..
        } = self;
        format!("{date}/{region}/{service}/{TERMINATOR}")
    }

    /// The text to sign. `signed_headers` are lower case and sorted. `None` when one of them is not in the request.
    pub(super) fn string_to_sign(
        &self,
        request: &SignableRequest<'_>,
        signed_headers: &[String],
    ) -> Option<String> {
        let (path, query) = split_uri(request.uri);
        let canonical_request = format!(
            "{method}\n{path}\n{query}\n{headers}\n{names}\n{body_hash}",
            method = request.method,
            path = canonical_path(path, self.service),
            query = canonical_query(query),
            headers = canonical_headers(request, signed_headers)?,
            names = signed_headers.join(";"),
            body_hash = body_hash(request),
        );
        Some(format!(
            "{ALGORITHM}\n{}\n{}\n{}",
            self.amz_date,
            self.credential_scope(),
            sha256_hex(canonical_request.as_bytes()),
        ))
    }

    /// The key derived from a secret for one day, region and service.
    pub(super) fn signing_key(&self, secret_access_key: &str) -> hmac::Key {
        let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret_access_key}").as_bytes());
        [self.date, self.region, self.service, TERMINATOR]
            .iter()
            .fold(first, |key, part| {
                let next = hmac::sign(&key, part.as_bytes());
                hmac::Key::new(hmac::HMAC_SHA256, next.as_ref())
            })
    }
}

#[cfg(test)]
mod tests;
