//! Replaying: a recording is fed to a fresh core, which must put out the same. (docs/formats.md §11)
//!
//! Nothing of it reaches a disk or a socket. All signatures are checked again with the keys of the genesis, and what the
//! replica itself signed is signed again with its key: a recording counts for nothing because of where it came from. One
//! that no replica made may break an assertion of the core; that ends the replay, and tells where.

mod player;
mod report;
#[cfg(test)]
mod tests;

use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use quorate_protocol::recording::Step;

use crate::configuration::ReplicaConfiguration;
use crate::error::Problem;
use crate::host::identity;
use crate::recording::file::{self, Found};
use crate::recording::{FOLDER, Reader};
use crate::storage::lock::FolderLock;

pub use player::before_last_input;
pub use report::{Divergence, Ended, Replayed, ReplayedStart, ShownStep};

use player::Player;

/// What to replay.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// The folder of recordings, if it is not the replica's own.
    pub recording: Option<PathBuf>,
    /// The start; all without it, or the last one where `until` or `show` name inputs of it.
    pub start: Option<u64>,
    /// The last input that is fed.
    pub until: Option<u64>,
    /// Inputs that are shown, counted from 1; 0 is the start itself.
    pub show: Option<RangeInclusive<u64>>,
}

/// Replays recordings of the replica with these files, which must be stopped if the recordings are in its own folder.
///
/// # Errors
/// There is nothing to replay, or it is not whole, or is none of this replica; or `show` failed.
pub fn replay(
    files: &ReplicaConfiguration,
    options: &Options,
    show: &mut dyn FnMut(ShownStep) -> anyhow::Result<()>,
) -> anyhow::Result<Replayed> {
    let own = files.data.join(FOLDER);
    let folder = options.recording.as_ref().unwrap_or(&own);
    let _lock = options.recording.is_none().then(|| FolderLock::acquire(&files.data)).transpose()?;
    let mut starts = Vec::new();
    for found in choose(folder, options)? {
        let replayed = replay_one(files, &found, options, show);
        starts.push(replayed.with_context(|| format!("replaying {}", found.path.display()))?);
    }
    Ok(Replayed {
        replica: files.id.value(),
        cluster: files.genesis.cluster().digest().to_string(),
        same: starts.iter().all(ReplayedStart::is_same),
        starts,
        steps: Vec::new(),
    })
}

/// The recordings that are meant.
fn choose(folder: &Path, options: &Options) -> anyhow::Result<Vec<Found>> {
    let none = || {
        let what = format!("there is no recording in {}", folder.display());
        Problem::failed(what, "have the replica record: `quorate replica --record`, or `on = true` in [recording]")
    };
    if !folder.is_dir() {
        return Err(none().into());
    }
    let mut found = file::list(folder).with_context(|| format!("listing {}", folder.display()))?;
    let starts = found.iter().map(|found| found.start.to_string()).collect::<Vec<_>>().join(", ");
    let last = found.last().ok_or_else(none)?.start;
    let names_inputs = options.until.is_some() || options.show.is_some();
    if let Some(start) = options.start.or_else(|| names_inputs.then_some(last)) {
        found.retain(|found| found.start == start);
        if found.is_empty() {
            let what = format!("{} holds no start {start}", folder.display());
            return Err(Problem::failed(what, format!("name one of these with --start: {starts}")).into());
        }
    }
    Ok(found)
}

fn replay_one(
    files: &ReplicaConfiguration,
    found: &Found,
    options: &Options,
    show: &mut dyn FnMut(ShownStep) -> anyhow::Result<()>,
) -> anyhow::Result<ReplayedStart> {
    let mut reader = Reader::open(&found.path)?;
    if reader.header().identity != identity(files) {
        let what = format!("{} is a recording of another replica or cluster", found.path.display());
        return Err(Problem::failed(what, "name the folder of the replica that recorded it: its key is needed").into());
    }
    if reader.header().program != env!("CARGO_PKG_VERSION") {
        let (recorded, own) = (&reader.header().program, env!("CARGO_PKG_VERSION"));
        tracing::warn!("recorded by version {recorded}, replayed by {own}: where they differ, so may what comes out");
    }
    let shown = |number| options.show.as_ref().is_some_and(|range| range.contains(&number));
    let mut player = Player::new(files, reader.header().clone());
    loop {
        let position = reader.position();
        let step = match reader.next_item()? {
            None => return Ok(player.finish(if reader.is_torn() { Ended::Torn } else { Ended::Killed })),
            Some(item) => player.put_together(item).with_context(|| format!("byte {position}"))?,
        };
        let Some(step) = step else { continue };
        if let Some(went) = player.compare(&step) {
            return Ok(player.end(went));
        }
        let number = match &step {
            Step::Start(_) => 0,
            Step::Input { .. } => player.inputs() + 1,
            Step::End { reason, .. } => return Ok(player.finish((*reason).into())),
        };
        if options.until.is_some_and(|until| number > until) {
            return Ok(player.finish(Ended::Until));
        }
        if options.until == Some(number) {
            before_last_input();
        }
        let what = if number == 0 { "the start".to_owned() } else { format!("input {number}") };
        player.feed(step).with_context(|| format!("{what}, byte {position}"))?;
        if shown(number) {
            show(player.shown(number))?;
        }
    }
}
