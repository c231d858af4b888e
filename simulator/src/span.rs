//! Lengths of time as people write them: `15ms`, `200us`, `1500ms`, `2s`, `1m`.

use core::fmt;
use core::str::FromStr;
use core::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// A length of time, or a moment counted from the start of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Span(pub Duration);

/// Text that is no length of time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is no length of time: write a whole number and `ns`, `us`, `ms`, `s` or `m`, for example 20ms")]
pub struct NotASpan(String);

/// The units, the longest first, each in nanoseconds.
const UNITS: [(&str, u64); 5] =
    [("m", 60_000_000_000), ("s", 1_000_000_000), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

impl Span {
    /// So many milliseconds.
    pub const fn milliseconds(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nanoseconds = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        let exact = UNITS.iter().find(|(_, unit)| nanoseconds.is_multiple_of(*unit));
        let (name, unit) = exact.copied().unwrap_or(("ns", 1));
        if nanoseconds == 0 { write!(formatter, "0s") } else { write!(formatter, "{}{name}", nanoseconds / unit) }
    }
}

impl FromStr for Span {
    type Err = NotASpan;

    fn from_str(text: &str) -> Result<Self, NotASpan> {
        let refused = || NotASpan(text.chars().take(32).collect());
        let end = text.find(|character: char| !character.is_ascii_digit()).ok_or_else(refused)?;
        let (number, name) = text.split_at(end);
        let unit = UNITS.iter().find(|(unit, _)| *unit == name).ok_or_else(refused)?.1;
        let number: u64 = number.parse().map_err(|_not_a_number| refused())?;
        Ok(Self(Duration::from_nanos(number.checked_mul(unit).ok_or_else(refused)?)))
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Span {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Span".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9]+(ns|us|ms|s|m)$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_in_the_longest_unit_that_is_exact_and_read_back() {
        for (text, nanoseconds) in
            [("0s", 0), ("7ns", 7), ("1500us", 1_500_000), ("20ms", 20_000_000), ("2m", 120_000_000_000)]
        {
            let span: Span = text.parse().expect("a length of time");
            assert_eq!((span.0.as_nanos(), span.to_string().as_str()), (nanoseconds, text));
        }
    }

    #[test]
    fn what_is_no_length_of_time_is_refused() {
        for text in ["", "5", "ms", "-1s", "1.5s", "1h", "99999999999999999999s", "18446744073709551615s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }
}
