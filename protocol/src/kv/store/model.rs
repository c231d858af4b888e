//! The store compared with a plain map, operation by operation: results, states, checkpoints.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use proptest::collection::vec as many;
use proptest::prelude::{Just, Strategy, any};
use proptest::sample::select;
use proptest::{option, prop_assert, prop_assert_eq, prop_oneof, proptest};

use super::tests::{run, run_bytes, run_within, store_of, transaction};
use super::*;
use crate::application::RESULT_BYTES_MAX;

type Model = BTreeMap<Vec<u8>, Vec<u8>>;

fn model_step(model: &mut Model, step: &Step) -> StepOutput {
    match step {
        Step::Put { key, value } => StepOutput::Done { replaced: model.insert(key.to_vec(), value.to_vec()).is_some() },
        Step::Get { key } => StepOutput::Value(model.get(&key[..]).map(|value| Blob::from(&value[..]))),
        Step::Delete { key } => StepOutput::Deleted(model.remove(&key[..]).is_some()),
    }
}

fn model_run(model: &mut Model, operation: &Operation) -> Output {
    let read = |model: &Model, key: &Blob| model.get(&key[..]).map(|value| Blob::from(&value[..]));
    match operation {
        Operation::Step(step) => Output::Step(model_step(model, step)),
        Operation::CompareAndSet { key, expect, set } => {
            let equal = read(model, key) == *expect;
            if equal {
                model.remove(&key[..]);
                model.extend(set.iter().map(|value| (key.to_vec(), value.to_vec())));
            }
            Output::Swapped(equal)
        }
        Operation::Range(range) => {
            let all = model.iter().filter(|(key, _)| key.starts_with(&range.prefix));
            let all = all.filter(|(key, _)| range.after.as_ref().is_none_or(|after| key[..] > after[..]));
            let mut entries: Vec<Entry> =
                all.map(|(key, value)| Entry { key: key[..].into(), value: value[..].into() }).collect();
            let more = entries.len() > range.limit as usize;
            entries.truncate(range.limit as usize);
            Output::Entries { entries: List::new(entries).expect("few"), more }
        }
        Operation::Transaction(transaction) => {
            let succeeded = transaction.conditions.iter().all(|condition| match condition {
                Condition::Equals { key, value } => read(model, key).as_ref() == Some(value),
                Condition::Exists { key } => model.contains_key(&key[..]),
                Condition::Absent { key } => !model.contains_key(&key[..]),
            });
            let steps = if succeeded { &transaction.then } else { &transaction.otherwise };
            let outputs = steps.iter().map(|step| model_step(model, step)).collect();
            Output::Transaction { succeeded, outputs: List::new(outputs).expect("as many as steps") }
        }
    }
}

fn any_key() -> impl Strategy<Value = Blob> {
    many(select(&[0_u8, b'a', 0xff][..]), 1..4).prop_map(Blob::from)
}

fn any_value() -> impl Strategy<Value = Blob> {
    many(0..2_u8, 0..3).prop_map(Blob::from)
}

fn any_step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (any_key(), any_value()).prop_map(|(key, value)| Step::Put { key, value }),
        1 => any_key().prop_map(|key| Step::Get { key }),
        1 => any_key().prop_map(|key| Step::Delete { key }),
    ]
}

fn any_condition() -> impl Strategy<Value = Condition> {
    prop_oneof![
        (any_key(), any_value()).prop_map(|(key, value)| Condition::Equals { key, value }),
        any_key().prop_map(|key| Condition::Exists { key }),
        any_key().prop_map(|key| Condition::Absent { key }),
    ]
}

fn any_operation() -> impl Strategy<Value = Operation> {
    let branch = || many(any_step(), 0..4);
    let prefix = prop_oneof![Just(Blob::EMPTY), any_key()];
    prop_oneof![
        6 => any_step().prop_map(Operation::Step),
        2 => (any_key(), option::of(any_value()), option::of(any_value()))
            .prop_map(|(key, expect, set)| Operation::CompareAndSet { key, expect, set }),
        1 => (prefix, option::of(any_key()), 1..5_u32)
            .prop_map(|(prefix, after, limit)| Operation::Range(Range { prefix, after, limit })),
        2 => (many(any_condition(), 0..3), branch(), branch())
            .prop_map(|(conditions, then, otherwise)| transaction(conditions, then, otherwise)),
    ]
}

proptest! {
    #[test]
    fn a_store_is_a_map_and_its_checkpoints_add_up_to_it(rounds in many(many(any_operation(), 0..30), 1..5)) {
        let (mut store, mut model, mut replayed) = (store_of(&[]), Model::new(), Model::new());
        for round in rounds {
            for operation in round {
                let before = store.clone();
                prop_assert_eq!(run(&mut store, &operation), model_run(&mut model, &operation));
                prop_assert!(!operation.is_read() || store == before);
            }
            for (key, value) in store.changes() {
                replayed.remove(&key[..]);
                replayed.extend(value.map(|value| (key.to_vec(), value.to_vec())));
            }
            prop_assert_eq!(&replayed, &model);
            let mut restored = store_of(&[]);
            let mut entries = replayed.iter().map(|(key, value)| Entry { key: key[..].into(), value: value[..].into() });
            prop_assert_eq!(restored.restore(&mut entries), Ok(()));
            prop_assert_eq!(&restored, &store);
        }
    }

    #[test]
    fn bytes_that_are_no_operation_give_invalid_and_change_nothing(
        bytes in many(any::<u8>(), 0..40), operation in any_operation(), cut in 1..20_usize,
    ) {
        let mut store = store_of(&[(b"a", b"1")]);
        let before = store.clone();
        let mut whole = operation.encode().expect("within the bounds").to_vec();
        let mut longer = whole.clone();
        longer.push(0);
        whole.truncate(whole.len().saturating_sub(cut));
        for bytes in [bytes, whole, longer] {
            if Operation::decode(&Blob::from(&bytes[..])).is_err() {
                prop_assert_eq!(run_bytes(&mut store, &bytes.into(), RESULT_BYTES_MAX), Output::Invalid);
            }
        }
        prop_assert_eq!(store, before);
    }

    #[test]
    fn no_result_exceeds_its_bound_and_the_bound_changes_no_state(
        operations in many((any_operation(), 0..60_usize), 0..40),
    ) {
        let (mut store, mut free) = (store_of(&[]), store_of(&[]));
        for (operation, result_bytes_max) in operations {
            let bounded = run_within(&mut store, &operation, result_bytes_max);
            let whole = run(&mut free, &operation);
            let length = whole.encode(usize::MAX).len();
            prop_assert!(length > result_bytes_max || bounded == whole, "what fits is given");
            prop_assert_eq!(&store, &free);
        }
    }
}
