//! A state that is put together of what was there and buckets that were fetched. (PROTOCOL §9)

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_protocol::output::StagedBucket;
use quorate_protocol::state::bucket_of;

/// The entries of `base` in a tree of this depth, but for the buckets that were replaced.
pub(crate) fn staged_entries(
    base: &BTreeMap<Bytes, Bytes>,
    buckets: &BTreeMap<u32, StagedBucket>,
    depth: u8,
) -> BTreeMap<Bytes, Bytes> {
    let is_kept = |key: &Bytes| !buckets.contains_key(&bucket_of(key, depth));
    let kept = base.iter().filter(|(key, _)| is_kept(key)).map(|(key, value)| (key.clone(), value.clone()));
    let new = buckets.values().flat_map(|bucket| bucket.entries.clone());
    kept.chain(new.map(|entry| (entry.key.into_bytes(), entry.value.into_bytes()))).collect()
}
