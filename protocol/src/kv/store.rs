//! The key-value store as a replicated application: deterministic, bounded, and without a panic that a client can reach.

use super::changed::Changed;
use super::operation::{Condition, Operation, Range, Step, Transaction, check_entry};
use super::output::{self, Output, StepOutput};
use crate::application::{Application, Changes, NotAState, Reading, Surroundings};
use crate::codec::{Blob, CodecError, List};
use crate::message::Entry;
use crate::state::Entries;

/// What an entry counts for besides the bytes of its key and value: about what it costs in memory.
pub const ENTRY_OVERHEAD_BYTES: u64 = 256;

/// How much a store holds unless it is told otherwise, in bytes.
pub const LIMIT_BYTES_DEFAULT: u64 = 8 << 30;

/// The key-value store.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Store {
    state: Entries,
    limit_bytes: u64,
    changed: Changed,
}

impl Store {
    /// An empty store that holds up to `limit_bytes`, [`ENTRY_OVERHEAD_BYTES`] counted for each entry. The limit decides
    /// results, so it must be the same on all replicas: it belongs to what the cluster agrees on, not to a machine.
    pub const fn new(limit_bytes: u64) -> Self {
        Self { state: Entries::new(), limit_bytes, changed: Changed::untracked() }
    }

    /// The same store, still empty, answering reads that nobody ordered. Half a megabyte more. (PROTOCOL §8)
    #[must_use]
    pub fn with_fast_reads(self) -> Self {
        Self { changed: Changed::tracked(), ..self }
    }

    /// The entries.
    pub const fn state(&self) -> &Entries {
        &self.state
    }

    pub(super) fn run(&mut self, operation: &Operation, bytes_max: usize) -> Output {
        match operation {
            Operation::Step(step) => self.run_alone(step, bytes_max),
            Operation::CompareAndSet { key, expect, set } => {
                self.compare_and_set(key, expect.as_deref(), set.as_deref())
            }
            Operation::Range(range) => self.page(range, bytes_max),
            Operation::Transaction(transaction) => self.run_transaction(transaction, bytes_max),
        }
    }

    fn run_alone(&mut self, step: &Step, bytes_max: usize) -> Output {
        if let Step::Get { key } = step {
            return self.get_alone(key, bytes_max);
        }
        if !self.has_room_for(core::slice::from_ref(step)) {
            return Output::Full;
        }
        Output::Step(self.run_step(step, &mut 0))
    }

    fn get_alone(&self, key: &[u8], bytes_max: usize) -> Output {
        let mut value_bytes_max = bytes_max.saturating_sub(output::STEP_OVERHEAD_BYTES + output::STEP_OUTPUT_BYTES);
        Output::Step(self.get(key, &mut value_bytes_max))
    }

    fn compare_and_set(&mut self, key: &[u8], expect: Option<&[u8]>, set: Option<&[u8]>) -> Output {
        if self.state.get_slice(key) != expect {
            return Output::Swapped(false);
        }
        match set {
            Some(value) if self.growth(key, value) > self.room() => return Output::Full,
            Some(value) => self.state.insert(key, value),
            None => self.state.remove(key),
        };
        Output::Swapped(true)
    }

    fn page(&self, range: &Range, bytes_max: usize) -> Output {
        let mut room = bytes_max.saturating_sub(output::PAGE_OVERHEAD_BYTES);
        let mut entries = alloc::vec::Vec::new();
        let mut more = false;
        for (key, value) in self.state.range(&range.prefix, range.after.as_deref()) {
            let bytes = output::ENTRY_OVERHEAD_BYTES + key.len() + value.len();
            more = bytes > room || entries.len() >= range.limit as usize;
            if more {
                break;
            }
            room -= bytes;
            entries.push(Entry { key: key.into(), value: value.into() });
        }
        if more && entries.is_empty() {
            return Output::Step(StepOutput::TooLarge);
        }
        Output::Entries { entries: List::new(entries).expect("the limit of a range is within the bound"), more }
    }

    /// Conditions first, then all steps of one branch or, if they might not fit, none.
    fn run_transaction(&mut self, transaction: &Transaction, bytes_max: usize) -> Output {
        let succeeded = transaction.conditions.iter().all(|condition| self.holds(condition));
        let steps = if succeeded { &transaction.then } else { &transaction.otherwise };
        if !self.has_room_for(steps) {
            return Output::Full;
        }
        let fixed_bytes = output::TRANSACTION_OVERHEAD_BYTES + output::STEP_OUTPUT_BYTES * steps.len();
        let mut value_bytes_max = bytes_max.saturating_sub(fixed_bytes);
        let outputs = steps.iter().map(|step| self.run_step(step, &mut value_bytes_max)).collect();
        Output::Transaction { succeeded, outputs: List::new(outputs).expect("as many outputs as steps") }
    }

    /// Runs a step whose value, if it gives one, may take `value_bytes_max`, and takes off what it took.
    fn run_step(&mut self, step: &Step, value_bytes_max: &mut usize) -> StepOutput {
        match step {
            Step::Put { key, value } => StepOutput::Done { replaced: self.state.insert(key, value) },
            Step::Delete { key } => StepOutput::Deleted(self.state.remove(key)),
            Step::Get { key } => self.get(key, value_bytes_max),
        }
    }

    fn get(&self, key: &[u8], value_bytes_max: &mut usize) -> StepOutput {
        let Some(value) = self.state.get(key) else { return StepOutput::Value(None) };
        match value_bytes_max.checked_sub(output::VALUE_OVERHEAD_BYTES + value.len()) {
            Some(rest) => {
                *value_bytes_max = rest;
                StepOutput::Value(Some(value.into()))
            }
            None => StepOutput::TooLarge,
        }
    }

    fn holds(&self, condition: &Condition) -> bool {
        match condition {
            Condition::Equals { key, value } => self.state.get_slice(key) == Some(value),
            Condition::Exists { key } => self.state.get_slice(key).is_some(),
            Condition::Absent { key } => self.state.get_slice(key).is_none(),
        }
    }

    /// Whether the steps cannot exceed the limit. What they delete is not counted in their favour.
    fn has_room_for(&self, steps: &[Step]) -> bool {
        // Almost always there is room for all of it, whatever is replaced: no need to look that up.
        let puts = steps.iter().filter_map(|step| match step {
            Step::Put { key, value } => Some(charge(key, value)),
            Step::Get { .. } | Step::Delete { .. } => None,
        });
        if puts.sum::<u64>() <= self.room() {
            return true;
        }
        let growth = steps.iter().map(|step| match step {
            Step::Put { key, value } => self.growth(key, value),
            Step::Get { .. } | Step::Delete { .. } => 0,
        });
        let growth: u64 = growth.sum();
        growth == 0 || growth <= self.room()
    }

    /// By how much the store grows if `key` gets this value now.
    fn growth(&self, key: &[u8], value: &[u8]) -> u64 {
        let before = self.state.get_slice(key).map_or(0, |before| charge(key, before));
        charge(key, value).saturating_sub(before)
    }

    fn room(&self) -> u64 {
        let overhead = ENTRY_OVERHEAD_BYTES.saturating_mul(self.state.len() as u64);
        self.limit_bytes.saturating_sub(self.state.raw_bytes().saturating_add(overhead))
    }
}

fn charge(key: &[u8], value: &[u8]) -> u64 {
    ENTRY_OVERHEAD_BYTES + (key.len() + value.len()) as u64
}

impl Default for Store {
    fn default() -> Self {
        Self::new(LIMIT_BYTES_DEFAULT)
    }
}

impl Application for Store {
    fn execute(&mut self, surroundings: &Surroundings, operation: &Blob) -> Blob {
        let bytes_max = surroundings.result_bytes_max;
        let output = match Operation::decode(operation) {
            Ok(operation) => {
                self.changed.note(&operation, surroundings.sequence);
                self.run(&operation, bytes_max)
            }
            Err(_malformed) => Output::Invalid,
        };
        output.encode(bytes_max)
    }

    fn changes(&mut self) -> Changes {
        self.state.changes()
    }

    fn restore(&mut self, entries: &mut dyn Iterator<Item = Entry>) -> Result<(), NotAState> {
        self.changed.clear();
        let mut room = self.limit_bytes;
        self.state.restore_checked(entries, |entry| {
            check_entry(&entry.key, &entry.value).map_err(|error| match error {
                CodecError::Malformed(reason) => reason,
                CodecError::Trailing(_) | CodecError::TooLong => "not an entry",
            })?;
            room = room.checked_sub(charge(&entry.key, &entry.value)).ok_or("more bytes than the limit")?;
            Ok(())
        })
    }

    fn read(&self, operation: &Blob, result_bytes_max: usize) -> Option<Reading> {
        let (output, since) = match Operation::decode(operation).ok()? {
            Operation::Step(Step::Get { key }) => (self.get_alone(&key, result_bytes_max), self.changed.key(&key)?),
            Operation::Range(range) => (self.page(&range, result_bytes_max), self.changed.any()?),
            Operation::Step(_) | Operation::CompareAndSet { .. } | Operation::Transaction(_) => return None,
        };
        let is_too_large = matches!(output, Output::Step(StepOutput::TooLarge));
        (!is_too_large).then(|| Reading { result: output.encode(result_bytes_max), since })
    }
}

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;
    use std::string::ToString;

    use quorate_crypto::SigningKey;

    use super::*;
    use crate::application::{RESULT_BYTES_MAX, Replicated};
    use crate::kv::{RANGE_ENTRIES_MAX, STEPS_MAX, VALUE_BYTES_MAX};
    use crate::number::Sequence;
    use crate::state::DEPTH;
    use crate::time::WallTime;

    pub(super) fn run_bytes(store: &mut Store, operation: &Blob, result_bytes_max: usize) -> Output {
        let client = SigningKey::from_seed([7; 32]).public_key();
        let surroundings = Surroundings { sequence: Sequence::new(1), time: WallTime::ZERO, client, result_bytes_max };
        let result = store.execute(&surroundings, operation);
        assert!(result.len() <= result_bytes_max);
        Output::decode(&result).expect("the store's own")
    }

    pub(super) fn run_within(store: &mut Store, operation: &Operation, result_bytes_max: usize) -> Output {
        run_bytes(store, &operation.encode().expect("within the bounds"), result_bytes_max)
    }

    pub(super) fn run(store: &mut Store, operation: &Operation) -> Output {
        run_within(store, operation, RESULT_BYTES_MAX)
    }

    pub(super) fn store_of(entries: &[(&[u8], &[u8])]) -> Store {
        let mut store = Store::default();
        for (key, value) in entries {
            assert_eq!(run(&mut store, &Operation::put(key, value)), done(false));
        }
        store
    }

    fn done(replaced: bool) -> Output {
        Output::Step(StepOutput::Done { replaced })
    }

    fn value(value: Option<&[u8]>) -> Output {
        Output::Step(StepOutput::Value(value.map(Blob::from)))
    }

    fn put(key: &[u8], value: &[u8]) -> Step {
        Step::Put { key: key.into(), value: value.into() }
    }

    fn get(key: &[u8]) -> Step {
        Step::Get { key: key.into() }
    }

    pub(super) fn transaction(conditions: Vec<Condition>, then: Vec<Step>, otherwise: Vec<Step>) -> Operation {
        let bounded = "as many as allowed";
        Operation::Transaction(Transaction {
            conditions: List::new(conditions).expect(bounded),
            then: List::new(then).expect(bounded),
            otherwise: List::new(otherwise).expect(bounded),
        })
    }

    fn range(prefix: &[u8], after: Option<&[u8]>, limit: u32) -> Operation {
        Operation::Range(Range { prefix: prefix.into(), after: after.map(Blob::from), limit })
    }

    /// All keys that begin with `prefix`, page by page.
    fn pages(store: &mut Store, prefix: &[u8], limit: u32, result_bytes_max: usize) -> Vec<Vec<u8>> {
        let mut keys: Vec<Vec<u8>> = Vec::new();
        loop {
            let page = range(prefix, keys.last().map(|key| &key[..]), limit);
            let Output::Entries { entries, more } = run_within(store, &page, result_bytes_max) else {
                panic!("a page");
            };
            assert!(entries.len() <= limit as usize);
            assert!(!more || !entries.is_empty(), "pages lead to the end");
            for entry in entries.iter() {
                assert!(keys.last().is_none_or(|last| last[..] < entry.key[..]), "pages go on");
                keys.push(entry.key.to_vec());
            }
            if !more {
                return keys;
            }
        }
    }

    #[test]
    fn the_root_of_a_small_store_never_changes() {
        let mut store = Replicated::new(Store::default(), DEPTH);
        let empty = "6914bdc5f6daaf0a5b6ff04e3e994a6d3042f54a37514755b4bcbb5037d33d1b";
        assert_eq!(store.checkpoint().root.to_string(), empty);
        let entries = [(&b"apple"[..], &b"red"[..]), (b"banana", b"yellow"), (b"cherry", b"")];
        let mut entries = entries.into_iter().map(|(key, value)| Entry { key: key.into(), value: value.into() });
        let expected = "fb40ebb65436031f6255c4b5fade7f391c11e2ac4aee2d920a88b25a6684027d";
        assert_eq!(store.restore(&mut entries).expect("in order").to_string(), expected);
    }

    #[test]
    fn a_value_is_set_only_over_the_one_expected() {
        let mut store = store_of(&[]);
        let mut swap = |expect: Option<&[u8]>, set: Option<&[u8]>| {
            let (expect, set) = (expect.map(Blob::from), set.map(Blob::from));
            run(&mut store, &Operation::CompareAndSet { key: b"k"[..].into(), expect, set })
        };
        assert_eq!(swap(Some(b""), Some(b"1")), Output::Swapped(false));
        assert_eq!(swap(None, Some(b"1")), Output::Swapped(true));
        assert_eq!(swap(None, Some(b"2")), Output::Swapped(false));
        assert_eq!(swap(Some(b"1"), None), Output::Swapped(true));
        assert_eq!(swap(None, None), Output::Swapped(true));
        assert_eq!(run(&mut store, &Operation::get(b"k")), value(None));
    }

    #[test]
    fn conditions_hold_before_the_first_step_and_a_step_sees_those_before_it() {
        let mut store = store_of(&[(b"a", b"1")]);
        let conditions = vec![
            Condition::Equals { key: b"a"[..].into(), value: b"1"[..].into() },
            Condition::Absent { key: b"b"[..].into() },
        ];
        let operation = transaction(
            conditions,
            vec![put(b"b", b"2"), get(b"b"), Step::Delete { key: b"a"[..].into() }, get(b"a")],
            vec![get(b"a"), put(b"c", b"3")],
        );
        let outputs = |outputs: Vec<StepOutput>| List::new(outputs).expect("few");
        let first = vec![
            StepOutput::Done { replaced: false },
            StepOutput::Value(Some(b"2"[..].into())),
            StepOutput::Deleted(true),
            StepOutput::Value(None),
        ];
        assert_eq!(run(&mut store, &operation), Output::Transaction { succeeded: true, outputs: outputs(first) });
        let second = vec![StepOutput::Value(None), StepOutput::Done { replaced: false }];
        assert_eq!(run(&mut store, &operation), Output::Transaction { succeeded: false, outputs: outputs(second) });
        let keys: Vec<&[u8]> = store.state().iter().map(|(key, _)| key).collect();
        assert_eq!(keys, [b"b", b"c"]);
    }

    #[test]
    fn pages_of_a_prefix_hold_each_of_its_keys_once_even_at_the_end_of_all_keys() {
        let entries: [(&[u8], &[u8]); 8] = [
            (b"\xfe", b""),
            (b"\xfe\xff", b""),
            (b"\xff", b""),
            (b"\xff\0", b""),
            (b"\xff\xfe", b""),
            (b"\xff\xff", b""),
            (b"\xff\xff\0", b""),
            (b"\xff\xff\xff", b""),
        ];
        let mut store = store_of(&entries);
        for prefix in [&b""[..], b"\xfe", b"\xff", b"\xff\xff", b"\xff\xff\xff", b"\xff\xff\xff\xff", b"\0"] {
            let expected: Vec<&[u8]> =
                entries.iter().map(|(key, _)| *key).filter(|key| key.starts_with(prefix)).collect();
            for limit in 1..9 {
                assert_eq!(pages(&mut store, prefix, limit, RESULT_BYTES_MAX), expected);
            }
        }
    }

    #[test]
    fn a_page_ends_where_its_bytes_or_its_entries_do() {
        let mut store = store_of(&[]);
        for number in 0..=RANGE_ENTRIES_MAX {
            run(&mut store, &Operation::put(&number.to_be_bytes(), &[0; 1000]));
        }
        let all = pages(&mut store, b"", RANGE_ENTRIES_MAX, RESULT_BYTES_MAX);
        assert_eq!(all.len(), RANGE_ENTRIES_MAX as usize + 1);
        let mut sizes = |limit, bytes| match run_within(&mut store, &range(b"", None, limit), bytes) {
            Output::Entries { entries, more } => (entries.len(), more),
            other => panic!("{other:?} is no page"),
        };
        assert_eq!(sizes(RANGE_ENTRIES_MAX, 2 << 20), (1024, true));
        assert_eq!(sizes(RANGE_ENTRIES_MAX, 9 + 3 * 1012), (3, true));
        assert_eq!(sizes(RANGE_ENTRIES_MAX, 9 + 3 * 1012 - 1), (2, true));
        assert_eq!(run_within(&mut store, &range(b"", None, 5), 1000), Output::Step(StepOutput::TooLarge));
        assert_eq!(
            run_within(&mut store, &range(b"x", None, 5), 9),
            Output::Entries { entries: List::empty(), more: false }
        );
    }

    #[test]
    fn a_value_that_does_not_fit_is_left_out_and_the_next_that_fits_is_given() {
        let mut store = store_of(&[(b"large", &[1; 600]), (b"small", b"2")]);
        assert_eq!(run_within(&mut store, &Operation::get(b"large"), 613), value(Some(&[1; 600])));
        assert_eq!(run_within(&mut store, &Operation::get(b"large"), 612), Output::Step(StepOutput::TooLarge));
        let operation = transaction(vec![], vec![get(b"large"), put(b"large", b""), get(b"small")], vec![]);
        let outputs =
            vec![StepOutput::TooLarge, StepOutput::Done { replaced: true }, StepOutput::Value(Some(b"2"[..].into()))];
        let outputs = List::new(outputs).expect("three");
        assert_eq!(run_within(&mut store, &operation, 100), Output::Transaction { succeeded: true, outputs });
    }

    #[test]
    fn the_largest_transaction_stays_within_the_bound_of_results() {
        let mut store = store_of(&[(b"k", &vec![1; VALUE_BYTES_MAX])]);
        let Output::Transaction { outputs, .. } =
            run(&mut store, &transaction(vec![], vec![get(b"k"); STEPS_MAX], vec![]))
        else {
            panic!("a transaction");
        };
        assert_eq!(outputs.iter().filter(|output| **output != StepOutput::TooLarge).count(), 3);
    }

    #[test]
    fn a_full_store_takes_nothing_more_until_something_goes() {
        let mut store = Store::new(2 * (ENTRY_OVERHEAD_BYTES + 4));
        assert_eq!(run(&mut store, &Operation::put(b"a", b"123")), done(false));
        assert_eq!(run(&mut store, &Operation::put(b"b", b"123")), done(false));
        let full = store.clone();
        let set = Some(b"1234"[..].into());
        for too_much in [
            Operation::put(b"c", b""),
            Operation::put(b"a", b"1234"),
            Operation::CompareAndSet { key: b"a"[..].into(), expect: Some(b"123"[..].into()), set },
            transaction(vec![], vec![Step::Delete { key: b"a"[..].into() }, put(b"c", b"")], vec![]),
            transaction(vec![Condition::Exists { key: b"c"[..].into() }], vec![], vec![put(b"a", b""), put(b"c", b"")]),
        ] {
            assert_eq!(run(&mut store, &too_much), Output::Full);
            assert_eq!(store, full);
        }
        assert_eq!(run(&mut store, &Operation::put(b"a", b"321")), done(true));
        assert_eq!(run(&mut store, &Operation::delete(b"b")), Output::Step(StepOutput::Deleted(true)));
        assert_eq!(run(&mut store, &Operation::put(b"c", b"123")), done(false));
    }

    #[test]
    fn entries_that_no_operation_could_have_written_are_no_state() {
        let entry = |key: usize, value: usize| Entry { key: vec![1; key].into(), value: vec![1; value].into() };
        let mut store = Store::new(1 << 20);
        for (wrong, reason) in [
            (entry(0, 0), "a key of no bytes or of too many"),
            (entry(1025, 0), "a key of no bytes or of too many"),
            (entry(1, VALUE_BYTES_MAX + 1), "a value of too many bytes"),
        ] {
            assert_eq!(store.restore(&mut [wrong].into_iter()), Err(NotAState { index: 0, reason }));
        }
        let mut many = (1..20).map(|length| entry(length, 100 << 10));
        let error = NotAState { index: 10, reason: "more bytes than the limit" };
        assert_eq!(store.restore(&mut many), Err(error));
    }
}
