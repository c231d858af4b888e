//! The rules of the architecture and of how this project is written, as tests: what a review would otherwise have to
//! look for in each change.
//!
//! | file | checks |
//! | --- | --- |
//! | `dependencies.rs` | which crate may know which |
//! | `words.rs` | what must not be written, and where |
//! | `lengths.rs` | files and functions that have grown too long |
//! | `citations.rs` | that code and PROTOCOL.md name each other's rules |
//! | `promises.rs` | that the threat model names tests that there are |
//! | `source.rs` | telling code from comments, and tests from what ships |

mod citations;
mod dependencies;
mod lengths;
mod promises;
mod source;
mod words;
