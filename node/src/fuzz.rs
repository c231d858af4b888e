//! What reads bytes that somebody else wrote, or a disk: fed with any, none of it may panic. (CONTRIBUTING.md)

#[cfg(test)]
#[path = "../../protocol/tests/fuzz/replay.rs"]
mod replay;

use crate::configuration::Genesis;

/// A target: its name, and what is done with bytes.
pub type Target = (&'static str, fn(&[u8]));

/// All targets of this package.
pub const TARGETS: [Target; 4] = [
    ("greeting", crate::transport::fuzz::greeting),
    ("frames", crate::transport::fuzz::frames),
    ("segments", crate::storage::fuzz::segments),
    ("genesis", genesis),
];

/// A genesis that is read is written the same again.
fn genesis(bytes: &[u8]) {
    if let Ok(genesis) = Genesis::parse("genesis.toml".as_ref(), bytes) {
        let again = Genesis::parse("genesis.toml".as_ref(), genesis.to_toml().as_bytes()).expect("what was written");
        assert_eq!(again.to_toml(), genesis.to_toml());
        assert_eq!(again.cluster(), genesis.cluster());
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn nothing_from_outside_panics() {
        for (name, target) in TARGETS {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fuzz/corpus").join(name);
            replay::replay(target, &replay::corpus(&folder), 1_000);
        }
    }
}
