//! Segments prepared ahead: a thread that allocates, zero-fills and syncs the next segment while the current one fills,
//! takes back those that were cut, and keeps the whole log within its share of the disk.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender};

use super::disk::Disk;
use super::log::Error;
use super::segment::{UNFINISHED, spare_name};

/// Most segments kept for reuse after a cut; more are removed. Bounds `Preparer::spares`.
pub(super) const SPARES_MAX: usize = 4;

/// A segment that is allocated, synced, and holds nothing.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Spare {
    pub(super) path: PathBuf,
    pub(super) bytes: u64,
}

/// What the writer asks for.
#[derive(Debug)]
pub(super) enum Order {
    /// A spare segment of so many bytes. Each such order has one answer.
    Prepare {
        bytes: u64,
        /// What has to stay free beside it, in bytes.
        reserve: u64,
    },
    /// This segment holds nothing any more.
    Retire(Spare),
}

/// Makes and keeps spare segments.
#[derive(Debug)]
pub(super) struct Preparer {
    pub(super) disk: Arc<dyn Disk>,
    pub(super) folder: PathBuf,
    pub(super) segment_bytes: u64,
    pub(super) disk_bytes_max: u64,
    /// Bytes of all files of the log, in use and spare.
    pub(super) used: u64,
    /// Of `segment_bytes` each, at most `SPARES_MAX`.
    pub(super) spares: Vec<Spare>,
    /// Number in the name of the next spare.
    pub(super) serial: u64,
}

impl Preparer {
    /// Carries out orders until the writer is gone.
    pub(super) fn run(mut self, orders: Receiver<Order>, answers: Sender<Result<Spare, Error>>) {
        for order in orders {
            match order {
                Order::Prepare { bytes, reserve } => {
                    // When the writer is gone nobody wants it; orders to retire may still follow.
                    answers.send(self.prepare(bytes, reserve)).ok();
                }
                Order::Retire(retired) => {
                    let path = retired.path.clone();
                    if let Err(source) = self.retire(retired) {
                        // Were a newer segment taken back while this one stays, the next start would find the gap between
                        // them and take it for lost votes. So this is the last answer: nothing else is taken back or made.
                        answers.send(Err(Error::io("take back", &path, source))).ok();
                        return;
                    }
                }
            }
        }
    }

    fn prepare(&mut self, bytes: u64, reserve: u64) -> Result<Spare, Error> {
        if bytes == self.segment_bytes
            && let Some(spare) = self.spares.pop()
        {
            return Ok(spare);
        }
        while self.used.saturating_add(bytes).saturating_add(reserve) > self.disk_bytes_max {
            let Some(spare) = self.spares.pop() else {
                return Err(Error::Full { folder: self.folder.clone(), bytes, source: None });
            };
            self.remove(&spare).map_err(|source| Error::io("remove", &spare.path, source))?;
        }
        let path = self.next_path();
        self.allocate(&path, bytes).map_err(|source| match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                Error::Full { folder: self.folder.clone(), bytes, source: Some(source) }
            }
            _ => Error::io("allocate", &path, source),
        })?;
        self.used += bytes;
        Ok(Spare { path, bytes })
    }

    fn allocate(&self, path: &Path, bytes: u64) -> io::Result<()> {
        let unfinished = path.with_extension(UNFINISHED);
        self.disk.allocate(&unfinished, bytes)?;
        // What is not counted does not stay.
        if let Err(error) = fs::rename(&unfinished, path) {
            fs::remove_file(&unfinished)?;
            return Err(error);
        }
        if let Err(error) = self.disk.sync_folder(&self.folder) {
            fs::remove_file(path)?;
            return Err(error);
        }
        Ok(())
    }

    /// Takes a segment back, or removes it; its old name is gone for good when this returns. Otherwise it could come back
    /// after a power cut without a newer one, and the file could be written again under that name.
    fn retire(&mut self, retired: Spare) -> io::Result<()> {
        if retired.bytes != self.segment_bytes || self.spares.len() >= SPARES_MAX {
            self.remove(&retired)?;
            return self.disk.sync_folder(&self.folder);
        }
        let path = self.next_path();
        fs::rename(&retired.path, &path)?;
        self.disk.sync_folder(&self.folder)?;
        self.spares.push(Spare { path, bytes: retired.bytes });
        Ok(())
    }

    fn remove(&mut self, spare: &Spare) -> io::Result<()> {
        fs::remove_file(&spare.path)?;
        self.used = self.used.saturating_sub(spare.bytes);
        Ok(())
    }

    fn next_path(&mut self) -> PathBuf {
        let path = self.folder.join(spare_name(self.serial));
        self.serial = self.serial.wrapping_add(1);
        path
    }
}

/// The writer's side of the preparer.
pub(super) struct Supply {
    orders: Sender<Order>,
    answers: Receiver<Result<Spare, Error>>,
    /// Whether a segment was ordered ahead and its answer not taken yet.
    ordered: bool,
    ready: Option<Spare>,
    /// There was no room for a segment made ahead, which nobody was told yet.
    refused: Option<Error>,
    pub(super) segment_bytes: u64,
}

impl Supply {
    pub(super) fn new(orders: Sender<Order>, answers: Receiver<Result<Spare, Error>>, segment_bytes: u64) -> Self {
        Self { orders, answers, ordered: false, ready: None, refused: None, segment_bytes }
    }

    /// Sees to it that a segment is ready or being prepared. The last one that the log may take is not made ahead: it is
    /// for what has to be written after the log has said that it is full.
    pub(super) fn order_ahead(&mut self) {
        if self.ready.is_none() && !self.ordered {
            let (bytes, reserve) = (self.segment_bytes, self.segment_bytes);
            self.ordered = self.orders.send(Order::Prepare { bytes, reserve }).is_ok();
        }
    }

    /// Whether a segment is ready, as far as is known without waiting.
    ///
    /// # Errors
    /// [`Error::Full`], once for each order ahead: there was no room. Others: as [`Supply::take`].
    pub(super) fn is_ready(&mut self) -> Result<bool, Error> {
        if self.ordered
            && let Ok(answer) = self.answers.try_recv()
        {
            self.ordered = false;
            self.ready = Some(answer?);
        }
        Ok(self.ready.is_some())
    }

    /// A segment of `bytes`, the one made ahead if it fits. Waits for it to be made.
    pub(super) fn take(&mut self, bytes: u64) -> Result<Spare, Error> {
        if self.ordered {
            self.ordered = false;
            self.ready = match self.answer() {
                // It left a reserve, which may be used now.
                Err(error @ Error::Full { .. }) => {
                    self.refused = Some(error);
                    None
                }
                answer => Some(answer?),
            };
        }
        if bytes == self.segment_bytes
            && let Some(spare) = self.ready.take()
        {
            return Ok(spare);
        }
        if let Some(spare) = self.ready.take() {
            // A segment of another length is wanted, and there may not be room for both.
            self.retire(spare);
        }
        // A failed send shows in the missing answer.
        self.orders.send(Order::Prepare { bytes, reserve: 0 }).ok();
        self.answer()
    }

    /// Once, if [`Self::take`] found that there had been no room for the segment made ahead: the [`Error::Full`] that
    /// [`Self::is_ready`] would have given.
    pub(super) const fn take_refusal(&mut self) -> Option<Error> {
        self.refused.take()
    }

    fn answer(&self) -> Result<Spare, Error> {
        self.answers.recv().unwrap_or(Err(Error::Stopped))
    }

    /// Gives a segment back.
    pub(super) fn retire(&self, retired: Spare) {
        // Without a preparer nothing is written any more either: the next segment has no answer.
        self.orders.send(Order::Retire(retired)).ok();
    }
}
