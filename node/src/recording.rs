//! Recordings: what a replica's core was fed with, in a file a start, for [`crate::replay`]. (docs/formats.md §11)
//!
//! - [`file`](mod@file): a recording's bytes: header, frames, names.
//! - `recorder.rs`: the host's half, and the thread that writes.
//! - [`reader`]: frame by frame back, for whoever wrote the file.
//! - `digest.rs`: outputs, as far as a recording keeps them.
//!
//! Off unless it is asked for. A recording never holds a replica up: what cannot be kept is not, and the recording ends there.

pub(crate) mod digest;
pub mod file;
pub mod reader;
pub(crate) mod recorder;

pub(crate) use quorate_protocol::recording::Role;
pub use reader::{ReadError, Reader};
pub(crate) use recorder::Recorder;

/// The folder of recordings, in that of a replica's data.
pub const FOLDER: &str = "recording";
