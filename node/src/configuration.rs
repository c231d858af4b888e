//! The files of a cluster: what they hold, how they are written, and how a wrong one is answered.
//!
//! ```text
//! net/genesis.toml            what all agree on; public                     genesis.rs
//! net/replica-<i>/            one replica's folder, for its machine only
//!     replica.toml            which replica it is, and this machine         replica.rs
//!     replica.key             its private key, mode 0600                    key_file.rs
//!     data/                   its log and checkpoints
//! standby/                    a standby's folder: that of a replica, with    standby.rs
//!     standby.key             a key of its own, and its copy of the
//!     genesis.toml            genesis
//! net/client/                 what a client needs                           client.rs
//!     client.toml  client.key  genesis.toml
//! ```
//!
//! Whatever is wrong in a file is said with path, line, key and value, and with the way to mend it: [`FileError`].
//! Paths in a file are relative to the folder that the file is in.

mod address;
mod client;
mod document;
mod file_error;
mod folder;
mod founding;
mod genesis;
pub mod key_file;
pub mod network;
mod parameters;
mod quantity;
mod replica;
pub mod standby;

pub use client::ClientConfiguration;
pub use file_error::FileError;
pub(crate) use folder::Staging as FolderStaging;
pub use genesis::Genesis;
pub use parameters::{ParameterChange, ParameterChangeError};
pub use quantity::{QuantityError, Size, parse_duration, parse_positive_duration};
pub(crate) use replica::{EVIDENCE, LOG, Outline, STATE};
pub use replica::{Recording, ReplicaConfiguration, Resources, Role};
