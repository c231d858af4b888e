//! What a client can ask of the key-value store, and its bytes.
//!
//! Each bound here is part of what an operation is: bytes that break one are no operation, on every replica alike.

use crate::codec::{Blob, BorrowDecode, CodecError, Encode, Frame, List, decode, encode};

/// Most bytes of a key; the least is one.
pub const KEY_BYTES_MAX: usize = 1 << 10;

/// Most bytes of a value, so that it fits a request together with its key.
pub const VALUE_BYTES_MAX: usize = 128 << 10;

/// Most entries of a page of a range.
pub const RANGE_ENTRIES_MAX: u32 = 1 << 10;

/// Most conditions of a transaction.
pub const CONDITIONS_MAX: usize = 64;

/// Most steps of each branch of a transaction.
pub const STEPS_MAX: usize = 64;

/// What a client asks for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Operation {
    /// One step alone. Gives [`Output::Step`](super::Output::Step).
    Step(Step),
    /// Writes if the key's value is as expected. Gives [`Output::Swapped`](super::Output::Swapped).
    CompareAndSet {
        /// The key.
        key: Blob,
        /// What it must hold; `None`: it must be absent.
        expect: Option<Blob>,
        /// What it is to hold then; `None`: it is to be absent.
        set: Option<Blob>,
    },
    /// A page of entries. Gives [`Output::Entries`](super::Output::Entries).
    Range(Range),
    /// Several steps at once. Gives [`Output::Transaction`](super::Output::Transaction).
    Transaction(Transaction),
}

/// What is done to one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Step {
    /// Writes a value. Gives [`StepOutput::Done`](super::StepOutput::Done).
    Put {
        /// The key, of one to [`KEY_BYTES_MAX`] bytes.
        key: Blob,
        /// Its new value, of at most [`VALUE_BYTES_MAX`] bytes.
        value: Blob,
    },
    /// Reads a value. Gives [`StepOutput::Value`](super::StepOutput::Value).
    Get {
        /// The key.
        key: Blob,
    },
    /// Removes a key and its value. Gives [`StepOutput::Deleted`](super::StepOutput::Deleted).
    Delete {
        /// The key.
        key: Blob,
    },
}

/// Asks for the entries whose keys begin with `prefix`, in ascending order.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Range {
    /// What the keys begin with; empty: all of them. At most [`KEY_BYTES_MAX`] bytes.
    pub prefix: Blob,
    /// Only keys greater than this one: the last of the page before.
    pub after: Option<Blob>,
    /// Most entries of the page, one to [`RANGE_ENTRIES_MAX`]; it holds fewer if their bytes do not fit.
    pub limit: u32,
}

/// Steps that happen together, with nothing between them: all of `then` if each condition holds, else all of `otherwise`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Transaction {
    /// What must hold before the first step.
    pub conditions: List<Condition, CONDITIONS_MAX>,
    /// What happens if everything holds; each step sees what those before it did.
    pub then: List<Step, STEPS_MAX>,
    /// What happens if anything does not hold.
    pub otherwise: List<Step, STEPS_MAX>,
}

/// What a transaction demands of one key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum Condition {
    /// The key holds this value.
    Equals {
        /// The key.
        key: Blob,
        /// The value.
        value: Blob,
    },
    /// The key holds some value.
    Exists {
        /// The key.
        key: Blob,
    },
    /// The key holds no value.
    Absent {
        /// The key.
        key: Blob,
    },
}

impl Operation {
    /// Writes a value.
    pub fn put(key: &[u8], value: &[u8]) -> Self {
        Self::Step(Step::Put { key: key.into(), value: value.into() })
    }

    /// Reads a value.
    pub fn get(key: &[u8]) -> Self {
        Self::Step(Step::Get { key: key.into() })
    }

    /// Removes a key and its value.
    pub fn delete(key: &[u8]) -> Self {
        Self::Step(Step::Delete { key: key.into() })
    }

    /// Whether it leaves the state as it is, whatever that is.
    pub fn is_read(&self) -> bool {
        match self {
            Self::Step(step) => step.is_read(),
            Self::CompareAndSet { .. } => false,
            Self::Range(_) => true,
            Self::Transaction(transaction) => transaction.steps().all(Step::is_read),
        }
    }

    /// The operation's bytes.
    ///
    /// # Errors
    /// [`CodecError::Malformed`] if it breaks a bound.
    pub fn encode(&self) -> Result<Blob, CodecError> {
        self.check()?;
        Ok(encode(self)?.into())
    }

    /// The operation that `bytes` are.
    ///
    /// # Errors
    /// [`CodecError`] if they are none, or one that breaks a bound.
    pub fn decode(bytes: &Blob) -> Result<Self, CodecError> {
        let operation: Self = decode(bytes.bytes())?;
        operation.check()?;
        Ok(operation)
    }

    fn check(&self) -> Result<(), CodecError> {
        match self {
            Self::Step(step) => step.check(),
            Self::CompareAndSet { key, expect, set } => {
                check_key(key)?;
                expect.iter().chain(set).try_for_each(|value| check_value(value))
            }
            Self::Range(range) => range.check(),
            Self::Transaction(transaction) => {
                transaction.conditions.iter().try_for_each(Condition::check)?;
                transaction.steps().try_for_each(Step::check)
            }
        }
    }
}

impl Step {
    const fn is_read(&self) -> bool {
        matches!(self, Self::Get { .. })
    }

    fn check(&self) -> Result<(), CodecError> {
        match self {
            Self::Put { key, value } => check_entry(key, value),
            Self::Get { key } | Self::Delete { key } => check_key(key),
        }
    }
}

impl Range {
    fn check(&self) -> Result<(), CodecError> {
        if self.prefix.len() > KEY_BYTES_MAX || self.after.as_ref().is_some_and(|after| after.len() > KEY_BYTES_MAX) {
            return Err(CodecError::Malformed("a range of longer keys than there are"));
        }
        if !(1..=RANGE_ENTRIES_MAX).contains(&self.limit) {
            return Err(CodecError::Malformed("a range of no entries or of too many"));
        }
        Ok(())
    }
}

impl Transaction {
    pub(super) fn steps(&self) -> impl Iterator<Item = &Step> {
        self.then.iter().chain(self.otherwise.iter())
    }
}

impl Condition {
    fn check(&self) -> Result<(), CodecError> {
        match self {
            Self::Equals { key, value } => check_entry(key, value),
            Self::Exists { key } | Self::Absent { key } => check_key(key),
        }
    }
}

/// Whether this can be an entry of the store.
pub(super) fn check_entry(key: &[u8], value: &[u8]) -> Result<(), CodecError> {
    check_key(key)?;
    check_value(value)
}

fn check_key(key: &[u8]) -> Result<(), CodecError> {
    match key.len() {
        1..=KEY_BYTES_MAX => Ok(()),
        _ => Err(CodecError::Malformed("a key of no bytes or of too many")),
    }
}

fn check_value(value: &[u8]) -> Result<(), CodecError> {
    if value.len() <= VALUE_BYTES_MAX { Ok(()) } else { Err(CodecError::Malformed("a value of too many bytes")) }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use proptest::collection::vec as bytes_of;
    use proptest::prelude::any;
    use proptest::{prop_assert_eq, proptest};

    use super::*;

    fn blob(length: usize) -> Blob {
        vec![b'x'; length].into()
    }

    fn transaction(conditions: Vec<Condition>, then: Vec<Step>, otherwise: Vec<Step>) -> Operation {
        let bounded = "as many as allowed";
        Operation::Transaction(Transaction {
            conditions: List::new(conditions).expect(bounded),
            then: List::new(then).expect(bounded),
            otherwise: List::new(otherwise).expect(bounded),
        })
    }

    fn range(prefix: usize, after: Option<usize>, limit: u32) -> Operation {
        Operation::Range(Range { prefix: blob(prefix), after: after.map(blob), limit })
    }

    #[test]
    fn the_bytes_of_operations_never_change() {
        let bytes = |operation: Operation| operation.encode().expect("within the bounds").to_vec();
        assert_eq!(bytes(Operation::put(b"k", b"vw")), b"\0\0\0\0\0\0\0\0\x01\0\0\0k\x02\0\0\0vw");
        assert_eq!(bytes(Operation::get(b"k")), b"\0\0\0\0\x01\0\0\0\x01\0\0\0k");
        assert_eq!(bytes(Operation::delete(b"k")), b"\0\0\0\0\x02\0\0\0\x01\0\0\0k");
        let compare_and_set = Operation::CompareAndSet { key: blob(1), expect: None, set: Some(blob(2)) };
        assert_eq!(bytes(compare_and_set), b"\x01\0\0\0\x01\0\0\0x\0\x01\x02\0\0\0xx");
        assert_eq!(bytes(range(0, Some(1), 7)), b"\x02\0\0\0\0\0\0\0\x01\x01\0\0\0x\x07\0\0\0");
        let transaction =
            transaction(vec![Condition::Absent { key: blob(1) }], vec![], vec![Step::Get { key: blob(1) }]);
        assert_eq!(
            bytes(transaction),
            b"\x03\0\0\0\x01\0\0\0\x02\0\0\0\x01\0\0\0x\0\0\0\0\x01\0\0\0\x01\0\0\0\x01\0\0\0x"
        );
    }

    #[test]
    fn what_breaks_a_bound_has_no_bytes_and_its_bytes_are_no_operation() {
        let key = blob(1);
        for key in [blob(0), blob(KEY_BYTES_MAX + 1)] {
            let value = Blob::EMPTY;
            for broken in [
                Operation::put(&key, b""),
                Operation::get(&key),
                Operation::delete(&key),
                Operation::CompareAndSet { key: key.clone(), expect: None, set: None },
                transaction(vec![Condition::Equals { key: key.clone(), value }], vec![], vec![]),
                transaction(vec![Condition::Exists { key: key.clone() }], vec![], vec![]),
                transaction(vec![], vec![Step::Get { key: key.clone() }], vec![]),
                transaction(vec![], vec![], vec![Step::Delete { key }]),
            ] {
                assert_refused(&broken);
            }
        }
        let long = blob(VALUE_BYTES_MAX + 1);
        assert_refused(&Operation::put(&key, &long));
        assert_refused(&Operation::CompareAndSet { key: key.clone(), expect: Some(long.clone()), set: None });
        assert_refused(&Operation::CompareAndSet { key: key.clone(), expect: None, set: Some(long.clone()) });
        assert_refused(&transaction(vec![Condition::Equals { key, value: long }], vec![], vec![]));
        assert_refused(&range(KEY_BYTES_MAX + 1, None, 1));
        assert_refused(&range(0, Some(KEY_BYTES_MAX + 1), 1));
        assert_refused(&range(0, None, 0));
        assert_refused(&range(0, None, RANGE_ENTRIES_MAX + 1));
    }

    fn assert_refused(operation: &Operation) {
        assert!(operation.encode().is_err());
        assert!(Operation::decode(&encode(operation).expect("short").into()).is_err(), "{operation:?}");
    }

    #[test]
    fn what_just_keeps_the_bounds_is_read_back() {
        for operation in [
            Operation::put(&blob(KEY_BYTES_MAX), &blob(VALUE_BYTES_MAX)),
            range(KEY_BYTES_MAX, Some(KEY_BYTES_MAX), RANGE_ENTRIES_MAX),
            transaction(
                vec![Condition::Exists { key: blob(KEY_BYTES_MAX) }; CONDITIONS_MAX],
                vec![Step::Get { key: blob(1) }; STEPS_MAX],
                vec![Step::Put { key: blob(1), value: blob(0) }; STEPS_MAX],
            ),
        ] {
            assert_eq!(Operation::decode(&operation.encode().expect("within the bounds")), Ok(operation));
        }
    }

    #[test]
    fn more_steps_than_allowed_are_no_operation() {
        let count = u32::try_from(STEPS_MAX + 1).expect("small").to_le_bytes();
        let bytes = [&b"\x03\0\0\0\0\0\0\0"[..], &count].concat();
        assert_eq!(Operation::decode(&bytes.into()), Err(CodecError::Malformed("more elements than the bound")));
    }

    #[test]
    fn only_what_writes_nothing_in_either_branch_is_a_read() {
        let (get, put) = (Step::Get { key: blob(1) }, Step::Put { key: blob(1), value: blob(1) });
        let condition = Condition::Exists { key: blob(1) };
        for read in [
            Operation::get(b"k"),
            range(0, None, 1),
            transaction(vec![condition], vec![get.clone()], vec![get.clone()]),
        ] {
            assert!(read.is_read(), "{read:?}");
        }
        for write in [
            Operation::put(b"k", b""),
            Operation::delete(b"k"),
            Operation::CompareAndSet { key: blob(1), expect: None, set: None },
            transaction(vec![], vec![get.clone(), put.clone()], vec![get.clone()]),
            transaction(vec![], vec![get], vec![put]),
        ] {
            assert!(!write.is_read(), "{write:?}");
        }
    }

    proptest! {
        #[test]
        fn bytes_that_are_an_operation_are_its_only_bytes(
            variant in 0..4_u8, bytes in bytes_of(proptest::sample::select(&[0_u8, 0, 0, 1, 2][..]), 0..60),
        ) {
            let bytes: Blob = [&[variant, 0, 0, 0][..], &bytes].concat().into();
            if let Ok(operation) = Operation::decode(&bytes) {
                prop_assert_eq!(operation.encode(), Ok(bytes));
            }
        }

        #[test]
        fn any_bytes_are_taken(bytes in bytes_of(any::<u8>(), 0..60)) {
            let _operation = Operation::decode(&bytes.into());
        }
    }
}
