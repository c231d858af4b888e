//! The text form of bytes: two hexadecimal digits each, written in lower case, read in either.

use core::fmt;

/// Why a text is not the hexadecimal form of 32 bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum HexError {
    /// The text has another length than two digits a byte.
    #[error("expected {expected} hexadecimal digits, found {found} bytes of text")]
    Length {
        /// Digits that the value has.
        expected: usize,
        /// Bytes of the text.
        found: usize,
    },
    /// A character is no hexadecimal digit.
    #[error("not a hexadecimal digit at byte {position}")]
    Digit {
        /// Where it is, in bytes from the start.
        position: usize,
    },
}

/// Writes `bytes` as lower-case digits.
pub(crate) fn write(bytes: &[u8], formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
    bytes.iter().try_for_each(|byte| write!(formatter, "{byte:02x}"))
}

/// Reads exactly `N` bytes.
pub(crate) fn read<const N: usize>(text: &str) -> Result<[u8; N], HexError> {
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if pairs.len() != N || !rest.is_empty() {
        return Err(HexError::Length { expected: 2 * N, found: text.len() });
    }
    let mut bytes = [0; N];
    for (pair_index, (byte, [high, low])) in bytes.iter_mut().zip(pairs).enumerate() {
        let position = 2 * pair_index;
        *byte = digit(*high, position)? << 4 | digit(*low, position + 1)?;
    }
    Ok(bytes)
}

fn digit(character: u8, position: usize) -> Result<u8, HexError> {
    match character {
        b'0'..=b'9' => Ok(character - b'0'),
        b'a'..=b'f' => Ok(character - b'a' + 10),
        b'A'..=b'F' => Ok(character - b'A' + 10),
        _ => Err(HexError::Digit { position }),
    }
}

#[cfg(test)]
mod tests {
    use super::{HexError, read};

    #[test]
    fn either_case_is_read() {
        assert_eq!(read("00fFaB"), Ok([0x00, 0xff, 0xab]));
    }

    #[test]
    fn another_length_is_refused() {
        assert_eq!(read::<2>("012"), Err(HexError::Length { expected: 4, found: 3 }));
        assert_eq!(read::<2>("012345"), Err(HexError::Length { expected: 4, found: 6 }));
        assert_eq!(read::<2>(""), Err(HexError::Length { expected: 4, found: 0 }));
    }

    #[test]
    fn the_first_character_that_is_no_digit_is_named() {
        for (text, position) in [("0g00", 1), ("+100", 0), ("00 0", 2), ("00é", 2), ("0:00", 1), ("0@00", 1)] {
            assert_eq!(read::<2>(text), Err(HexError::Digit { position }), "{text}");
        }
    }
}
