//! Sizes and durations as people write them: `256`, `4KiB`; `500ms`, `20s`, `5m`.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// Why a text is no size or duration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum QuantityError {
    /// It does not begin with a whole number.
    #[error("not a whole number with a unit, such as {example}")]
    Number {
        /// A text that would be right.
        example: &'static str,
    },
    /// The number is followed by something that is no unit.
    #[error("`{unit}` is no unit: use {units}")]
    Unit {
        /// What stands there.
        unit: String,
        /// What may stand there.
        units: &'static str,
    },
    /// A duration lacks its unit.
    #[error("a unit is missing: use {units}")]
    UnitMissing {
        /// What may stand there.
        units: &'static str,
    },
    /// It is nothing, where that makes no sense.
    #[error("must be longer than nothing")]
    Zero,
    /// It does not fit 64 bits.
    #[error("too large")]
    TooLarge,
}

const DURATION_UNITS: &str = "ms, s, m or h";
const SIZE_UNITS: &str = "B, KiB, MiB, GiB or TiB";

/// Reads a duration: `500ms`, `20s`, `5m`, `2h`.
///
/// # Errors
/// [`QuantityError`] says what is wrong with the text.
pub fn parse_duration(text: &str) -> Result<Duration, QuantityError> {
    let (number, unit) = split(text, "`500ms`, `20s` or `5m`")?;
    let unit_ms: u64 = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "" => return Err(QuantityError::UnitMissing { units: DURATION_UNITS }),
        _ => return Err(QuantityError::Unit { unit: unit.to_owned(), units: DURATION_UNITS }),
    };
    number.checked_mul(unit_ms).map(Duration::from_millis).ok_or(QuantityError::TooLarge)
}

/// Reads a duration that is longer than nothing.
///
/// # Errors
/// [`QuantityError`] says what is wrong with the text.
pub fn parse_positive_duration(text: &str) -> Result<Duration, QuantityError> {
    parse_duration(text).and_then(|duration| if duration.is_zero() { Err(QuantityError::Zero) } else { Ok(duration) })
}

/// A number of bytes. Its text form is the shortest exact one: `256`, `4KiB`, `64MiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Size(u64);

impl Size {
    /// So many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// The number of bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }
}

impl FromStr for Size {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let (number, unit) = split(text, "`256` or `4KiB`")?;
        let unit_bytes: u64 = match unit {
            "" | "B" => 1,
            "KiB" => 1 << 10,
            "MiB" => 1 << 20,
            "GiB" => 1 << 30,
            "TiB" => 1 << 40,
            _ => return Err(QuantityError::Unit { unit: unit.to_owned(), units: SIZE_UNITS }),
        };
        number.checked_mul(unit_bytes).map(Self).ok_or(QuantityError::TooLarge)
    }
}

impl fmt::Display for Size {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let units = [("TiB", 1_u64 << 40), ("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)];
        match units.into_iter().find(|(_, bytes)| self.0 != 0 && self.0.is_multiple_of(*bytes)) {
            Some((unit, bytes)) => write!(formatter, "{}{unit}", self.0 / bytes),
            None => write!(formatter, "{}", self.0),
        }
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The number that `text` begins with, and the rest of it.
fn split<'a>(text: &'a str, example: &'static str) -> Result<(u64, &'a str), QuantityError> {
    let end = text.find(|character: char| !character.is_ascii_digit()).unwrap_or(text.len());
    let (number, unit) = text.split_at(end);
    match number.parse() {
        Ok(number) => Ok((number, unit)),
        Err(_) if number.is_empty() => Err(QuantityError::Number { example }),
        Err(_) => Err(QuantityError::TooLarge),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_read_with_their_units() {
        assert_eq!(parse_duration("500ms"), Ok(Duration::from_millis(500)));
        assert_eq!(parse_duration("20s"), Ok(Duration::from_secs(20)));
        assert_eq!(parse_duration("5m"), Ok(Duration::from_mins(5)));
        assert_eq!(parse_duration("2h"), Ok(Duration::from_hours(2)));
        assert_eq!(parse_duration("0ms"), Ok(Duration::ZERO));
        assert_eq!(parse_positive_duration("0ms"), Err(QuantityError::Zero));
        assert_eq!(parse_positive_duration("1ms"), Ok(Duration::from_millis(1)));
    }

    #[test]
    fn what_is_no_duration_is_refused_with_the_reason() {
        assert_eq!(parse_duration("20"), Err(QuantityError::UnitMissing { units: DURATION_UNITS }));
        assert!(matches!(parse_duration("20 s"), Err(QuantityError::Unit { .. })));
        assert!(matches!(parse_duration("20S"), Err(QuantityError::Unit { .. })));
        for text in ["", "s", "-1s", "+1s", " 1s", ".5s"] {
            assert!(matches!(parse_duration(text), Err(QuantityError::Number { .. })), "{text}");
        }
        assert!(matches!(parse_duration("1.5s"), Err(QuantityError::Unit { .. })));
        assert_eq!(parse_duration("18446744073709551615h"), Err(QuantityError::TooLarge));
        assert_eq!(parse_duration("99999999999999999999s"), Err(QuantityError::TooLarge));
    }

    #[test]
    fn sizes_are_read_with_and_without_a_unit() {
        for (text, bytes) in [("256", 256), ("256B", 256), ("4KiB", 4096), ("64MiB", 64 << 20), ("2GiB", 2 << 30)] {
            assert_eq!(text.parse(), Ok(Size::new(bytes)), "{text}");
        }
    }

    #[test]
    fn what_is_no_size_is_refused_with_the_reason() {
        assert!(matches!("4KB".parse::<Size>(), Err(QuantityError::Unit { .. })));
        assert!(matches!("KiB".parse::<Size>(), Err(QuantityError::Number { .. })));
        assert_eq!("16777216TiB".parse::<Size>(), Err(QuantityError::TooLarge));
    }

    #[test]
    fn a_size_is_written_as_it_is_read() {
        for text in ["0", "1", "1023", "4KiB", "1025", "64MiB", "1GiB", "3TiB"] {
            assert_eq!(text.parse::<Size>().map(|size| size.to_string()), Ok(text.to_owned()));
        }
    }
}
