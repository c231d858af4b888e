//! The built-in application: a key-value store with conditions, transactions and pages of ranges.
//!
//! It is pure, so that the simulator runs what ships. Operations and their results are bytes to the protocol; here they
//! are [`Operation`] and [`Output`], each with one encoding. The store is [`Store`].

mod changed;
mod operation;
mod output;
mod store;

pub use operation::{
    CONDITIONS_MAX, Condition, KEY_BYTES_MAX, Operation, RANGE_ENTRIES_MAX, Range, STEPS_MAX, Step, Transaction,
    VALUE_BYTES_MAX,
};
pub use output::{Output, StepOutput};
pub use store::{ENTRY_OVERHEAD_BYTES, LIMIT_BYTES_DEFAULT, Store};
