//! Scalars that JSON lacks: points in time and bytes.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::{Error, Unexpected, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The largest number below which every whole `f64` is exact.
const EXACT: f64 = 9_007_199_254_740_992.0;

/// A point in time as SSM sends it: a JSON number of seconds since 1970, with a fraction if need be.
///
/// Reading also accepts a text in RFC 3339, as the SDKs do.
#[derive(Clone, Copy, Debug, Default, PartialEq, PartialOrd)]
pub struct EpochSeconds(pub f64);

impl EpochSeconds {
    pub fn from_millis(millis: u64) -> Self {
        #[expect(clippy::cast_precision_loss, reason = "exact for the next 285,000 years")]
        let millis = millis as f64;
        Self(millis / 1000.0)
    }

    /// Milliseconds since 1970, rounded; times before that become 0.
    pub fn millis(self) -> u64 {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "saturation is meant"
        )]
        let millis = (self.0 * 1000.0).round() as u64;
        millis
    }
}

/// From milliseconds since 1970.
impl From<u64> for EpochSeconds {
    fn from(millis: u64) -> Self {
        Self::from_millis(millis)
    }
}

impl Serialize for EpochSeconds {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        if self.0.fract() == 0.0 && self.0.abs() < EXACT {
            #[expect(clippy::cast_possible_truncation, reason = "whole and small, as just tested")]
            serializer.serialize_i64(self.0 as i64)
        } else {
            serializer.serialize_f64(self.0)
        }
    }
}

impl<'de> Deserialize<'de> for EpochSeconds {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(EpochVisitor)
    }
}

struct EpochVisitor;

#[expect(
    clippy::cast_precision_loss,
    reason = "JSON numbers of other peers are doubles as well"
)]
impl Visitor<'_> for EpochVisitor {
    type Value = EpochSeconds;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("seconds since the epoch or an ISO 8601 time")
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<EpochSeconds, E> {
        Ok(EpochSeconds(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<EpochSeconds, E> {
        Ok(EpochSeconds(value as f64))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<EpochSeconds, E> {
        Ok(EpochSeconds(value as f64))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<EpochSeconds, E> {
        let time: jiff::Timestamp = value
            .parse()
            .map_err(|_| E::invalid_value(Unexpected::Str(value), &self))?;
        Ok(EpochSeconds(time.as_millisecond() as f64 / 1000.0))
    }
}

/// Bytes, base64 in JSON.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blob(pub Vec<u8>);

impl Serialize for Blob {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(&self.0))
    }
}

impl<'de> Deserialize<'de> for Blob {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map(Self).map_err(D::Error::custom)
    }
}
