//! What the key-value store answers, and its bytes.
//!
//! An output never takes more bytes than its request has left for results: a value or a page that does not fit is left
//! out and says so.

use super::operation::{RANGE_ENTRIES_MAX, STEPS_MAX};
use crate::codec::{Blob, BorrowDecode, CodecError, Encode, Frame, List, decode, encode};
use crate::message::Entry;

/// What came of an operation.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Output {
    /// Of a step.
    Step(StepOutput),
    /// Of a compare-and-set: whether the value was as expected and was set.
    Swapped(bool),
    /// Of a range.
    Entries {
        /// A page of it, in ascending order of the keys.
        entries: List<Entry, { RANGE_ENTRIES_MAX as usize }>,
        /// Whether entries follow: ask for those after the last one here.
        more: bool,
    },
    /// Of a transaction.
    Transaction {
        /// Whether each condition held.
        succeeded: bool,
        /// Of each step of the branch that was taken.
        outputs: List<StepOutput, STEPS_MAX>,
    },
    /// It would have exceeded the store's limit of bytes, and changed nothing.
    Full,
    /// The bytes are no operation of this store, and changed nothing.
    Invalid,
}

/// What came of a step.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum StepOutput {
    /// Of a put.
    Done {
        /// Whether the key held a value before.
        replaced: bool,
    },
    /// Of a get: the value, if the key holds one.
    Value(Option<Blob>),
    /// Of a delete: whether the key held a value.
    Deleted(bool),
    /// What it tells does not fit the results of its request: ask again in a request of its own. It took effect.
    TooLarge,
}

/// What an output takes besides the output of its step: the number of its variant.
pub(super) const STEP_OVERHEAD_BYTES: usize = 4;

/// What a transaction's output takes besides the outputs of its steps: variant, flag and count.
pub(super) const TRANSACTION_OVERHEAD_BYTES: usize = 4 + 1 + 4;

/// Most that the output of a step takes without a value.
pub(super) const STEP_OUTPUT_BYTES: usize = 4 + 1;

/// What a value takes besides its bytes and [`STEP_OUTPUT_BYTES`]: its length.
pub(super) const VALUE_OVERHEAD_BYTES: usize = 4;

/// What a page takes besides its entries: variant, count and flag.
pub(super) const PAGE_OVERHEAD_BYTES: usize = 4 + 4 + 1;

/// What an entry of a page takes besides the bytes of key and value: their lengths.
pub(super) const ENTRY_OVERHEAD_BYTES: usize = 4 + 4;

impl Output {
    /// The output that `bytes` are. No bytes at all stand for one that did not fit: [`StepOutput::TooLarge`].
    ///
    /// # Errors
    /// [`CodecError`].
    pub fn decode(bytes: &Blob) -> Result<Self, CodecError> {
        if bytes.is_empty() {
            return Ok(Self::Step(StepOutput::TooLarge));
        }
        decode(bytes.bytes())
    }

    /// The output's bytes, or none if they would be more than `bytes_max`.
    pub(super) fn encode(&self, bytes_max: usize) -> Blob {
        let bytes = encode(self).map(Blob::from).unwrap_or_default();
        if bytes.len() <= bytes_max { bytes } else { Blob::EMPTY }
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use super::*;

    fn length(output: &Output) -> usize {
        output.encode(usize::MAX).len()
    }

    #[test]
    fn the_sizes_that_results_are_bounded_with_are_those_of_the_encoding() {
        let value = |length: usize| StepOutput::Value(Some(vec![0; length].into()));
        let small = [StepOutput::Done { replaced: true }, StepOutput::Value(None), StepOutput::Deleted(false)];
        for output in small {
            assert_eq!(length(&Output::Step(output)), STEP_OVERHEAD_BYTES + STEP_OUTPUT_BYTES);
        }
        assert!(length(&Output::Step(StepOutput::TooLarge)) < STEP_OVERHEAD_BYTES + STEP_OUTPUT_BYTES);
        let with_value = length(&Output::Step(value(9)));
        assert_eq!(with_value, STEP_OVERHEAD_BYTES + STEP_OUTPUT_BYTES + VALUE_OVERHEAD_BYTES + 9);
        let outputs = List::new(vec![StepOutput::Value(None), value(5)]).expect("two");
        let steps = 2 * STEP_OUTPUT_BYTES + VALUE_OVERHEAD_BYTES + 5;
        let transaction = Output::Transaction { succeeded: true, outputs };
        assert_eq!(length(&transaction), TRANSACTION_OVERHEAD_BYTES + steps);
        let entry = Entry { key: b"key"[..].into(), value: b"value"[..].into() };
        let page = Output::Entries { entries: List::new(vec![entry]).expect("one"), more: true };
        assert_eq!(length(&page), PAGE_OVERHEAD_BYTES + ENTRY_OVERHEAD_BYTES + 8);
    }

    #[test]
    fn the_bytes_of_outputs_never_change_and_are_read_back() {
        let entry = Entry { key: b"k"[..].into(), value: b""[..].into() };
        let outputs: [(Output, &[u8]); 6] = [
            (Output::Step(StepOutput::Value(Some(b"v"[..].into()))), b"\0\0\0\0\x01\0\0\0\x01\x01\0\0\0v"),
            (Output::Swapped(true), b"\x01\0\0\0\x01"),
            (
                Output::Entries { entries: List::new(vec![entry]).expect("one"), more: false },
                b"\x02\0\0\0\x01\0\0\0\x01\0\0\0k\0\0\0\0\0",
            ),
            (
                Output::Transaction {
                    succeeded: false,
                    outputs: List::new(vec![StepOutput::Deleted(true), StepOutput::TooLarge]).expect("two"),
                },
                b"\x03\0\0\0\0\x02\0\0\0\x02\0\0\0\x01\x03\0\0\0",
            ),
            (Output::Full, b"\x04\0\0\0"),
            (Output::Invalid, b"\x05\0\0\0"),
        ];
        for (output, bytes) in outputs {
            assert_eq!(&output.encode(usize::MAX)[..], bytes);
            assert_eq!(Output::decode(&bytes.into()), Ok(output));
        }
    }

    #[test]
    fn an_output_that_does_not_fit_is_read_as_too_large() {
        let output = Output::Swapped(true);
        assert_eq!(Output::decode(&output.encode(5)), Ok(output.clone()));
        assert_eq!(Output::decode(&output.encode(4)), Ok(Output::Step(StepOutput::TooLarge)));
    }
}
