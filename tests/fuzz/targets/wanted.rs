//! Which target is fuzzed.

/// The one that `QUORATE_TARGET` names.
pub(crate) fn wanted(targets: &[(&'static str, fn(&[u8]))]) -> fn(&[u8]) {
    let wanted = std::env::var("QUORATE_TARGET").unwrap_or_default();
    let names = || targets.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", ");
    let target = targets.iter().find(|(name, _)| *name == wanted);
    target.unwrap_or_else(|| panic!("QUORATE_TARGET is `{wanted}`, and none of {}", names())).1
}
