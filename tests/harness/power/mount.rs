//! The disk as the system calls it.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{
    BackgroundSession, BsdFileFlags, Config, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation,
    INodeNo, LockOwner, MountOption, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyEmpty, ReplyEntry, ReplyOpen, ReplyWrite, Request, TimeOrNow, WriteFlags,
};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::process::{getegid, geteuid};

use super::file::File;
use super::tree::{Folder, Kind, Number, ROOT, Tree};
use super::{Operation, Shared};

/// How long the system may rely on what it was told: a cut changes it.
const TTL: Duration = Duration::ZERO;

const GENERATION: Generation = Generation(0);

/// Files are read and written past the page cache: all that is written is known here at once.
const OPEN: FopenFlags = FopenFlags::FOPEN_DIRECT_IO;

/// Mounts a disk.
pub(super) fn mount(path: &Path, shared: &Arc<Shared>) -> io::Result<BackgroundSession> {
    let mut config = Config::default();
    config.mount_options =
        vec![MountOption::FSName("quorate-test".to_owned()), MountOption::NoDev, MountOption::NoSuid];
    fuser::spawn_mount(Calls { shared: Arc::clone(shared) }, path, &config)
}

struct Calls {
    shared: Arc<Shared>,
}

fn refusal(errno: Errno) -> fuser::Errno {
    fuser::Errno::from_i32(errno.raw_os_error())
}

fn attributes(tree: &Tree, number: Number) -> Result<FileAttr, Errno> {
    let node = tree.node(number)?;
    let (kind, size, nlink) = match &node.kind {
        Kind::File(file) => (FileType::RegularFile, file.length(), 1),
        Kind::Folder(_) => (FileType::Directory, 0, 2),
    };
    Ok(FileAttr {
        ino: INodeNo(number),
        size,
        blocks: size.div_ceil(512),
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind,
        perm: node.mode,
        nlink,
        uid: geteuid().as_raw(),
        gid: getegid().as_raw(),
        rdev: 0,
        blksize: 4096,
        flags: 0,
    })
}

fn permissions(mode: u32, umask: u32) -> u16 {
    u16::try_from(mode & !umask & 0o7777).expect("twelve bits fit into sixteen")
}

impl Calls {
    fn make(&self, folder: INodeNo, name: &OsStr, kind: Kind, mode: u16) -> Result<FileAttr, Errno> {
        self.shared.change(Operation::Name(folder.0), |tree| {
            let number = tree.make(folder.0, name, kind, mode)?;
            tree.look_up(number);
            attributes(tree, number)
        })
    }
}

/// Answers a call that gives nothing back.
fn answer(reply: ReplyEmpty, done: Result<(), Errno>) {
    match done {
        Ok(()) => reply.ok(),
        Err(errno) => reply.error(refusal(errno)),
    }
}

fn answer_entry(reply: ReplyEntry, found: Result<FileAttr, Errno>) {
    match found {
        Ok(found) => reply.entry(&TTL, &found, GENERATION),
        Err(errno) => reply.error(refusal(errno)),
    }
}

impl Filesystem for Calls {
    fn lookup(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let found = self.shared.look(|tree| {
            let number = tree.find(folder.0, name)?;
            tree.look_up(number);
            attributes(tree, number)
        });
        answer_entry(reply, found);
    }

    fn forget(&self, _: &Request, number: INodeNo, count: u64) {
        self.shared.lock().tree.forget_lookups(number.0, count);
    }

    fn getattr(&self, _: &Request, number: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.shared.look(|tree| attributes(tree, number.0)) {
            Ok(found) => reply.attr(&TTL, &found),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        number: INodeNo,
        mode: Option<u32>,
        _uid: Option<u32>,
        _gid: Option<u32>,
        size: Option<u64>,
        _atime: Option<TimeOrNow>,
        _mtime: Option<TimeOrNow>,
        _ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _crtime: Option<SystemTime>,
        _chgtime: Option<SystemTime>,
        _bkuptime: Option<SystemTime>,
        _flags: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let number = number.0;
        let resized = size.map_or(Ok(()), |length| {
            self.shared.change(Operation::Length(number), |tree| {
                tree.file(number)?.set_length(length);
                Ok(())
            })
        });
        let done = resized.and_then(|()| {
            self.shared.look(|tree| {
                mode.map_or(Ok(()), |mode| tree.set_mode(number, permissions(mode, 0)))?;
                attributes(tree, number)
            })
        });
        match done {
            Ok(found) => reply.attr(&TTL, &found),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn mkdir(&self, _: &Request, folder: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        answer_entry(reply, self.make(folder, name, Kind::Folder(Folder::default()), permissions(mode, umask)));
    }

    fn unlink(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.shared.change(Operation::Name(folder.0), |tree| tree.remove(folder.0, name, false));
        answer(reply, done);
    }

    fn rmdir(&self, _: &Request, folder: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let done = self.shared.change(Operation::Name(folder.0), |tree| tree.remove(folder.0, name, true));
        answer(reply, done);
    }

    fn rename(
        &self,
        _: &Request,
        folder: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        if !flags.is_empty() {
            return reply.error(fuser::Errno::EINVAL);
        }
        let done = self.shared.change(Operation::Name(to.0), |tree| tree.rename((folder.0, name), (to.0, new)));
        answer(reply, done);
    }

    fn open(&self, _: &Request, number: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        match self.shared.look(|tree| tree.file(number.0).map(drop)) {
            Ok(()) => reply.opened(FileHandle(0), OPEN),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn create(
        &self,
        _: &Request,
        folder: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        _flags: i32,
        reply: ReplyCreate,
    ) {
        match self.make(folder, name, Kind::File(File::default()), permissions(mode, umask)) {
            Ok(made) => reply.created(&TTL, &made, GENERATION, FileHandle(0), OPEN),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn read(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        position: u64,
        count: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let count = usize::try_from(count).unwrap_or(usize::MAX);
        match self.shared.look(|tree| Ok(tree.file(number.0)?.read(position, count))) {
            Ok(bytes) => reply.data(&bytes),
            Err(errno) => reply.error(refusal(errno)),
        }
    }

    fn write(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        position: u64,
        bytes: &[u8],
        _: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let number = number.0;
        let flags = open_flags(flags.0);
        let mut done = self.shared.change(Operation::Write(number), |tree| {
            let file = tree.file(number)?;
            let position = if flags.contains(OFlags::APPEND) { file.length() } else { position };
            file.write(position, bytes);
            Ok(())
        });
        if flags.contains(OFlags::DSYNC) {
            done = done.and_then(|()| self.sync(number));
        }
        match (done, u32::try_from(bytes.len())) {
            (Ok(()), Ok(count)) => reply.written(count),
            (Ok(()), Err(_)) => reply.error(fuser::Errno::EINVAL),
            (Err(errno), _) => reply.error(refusal(errno)),
        }
    }

    fn fallocate(
        &self,
        _: &Request,
        number: INodeNo,
        _: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        // Other modes make holes or leave the length alone: nobody here asks for one.
        if mode != 0 {
            return reply.error(fuser::Errno::EOPNOTSUPP);
        }
        let done = self.shared.change(Operation::Length(number.0), |tree| {
            let file = tree.file(number.0)?;
            file.set_length(file.length().max(offset.saturating_add(length)));
            Ok(())
        });
        answer(reply, done);
    }

    /// A file that is closed is not synced by that.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, number: INodeNo, _: FileHandle, _data_alone: bool, reply: ReplyEmpty) {
        answer(reply, self.sync(number.0));
    }

    fn fsyncdir(&self, _: &Request, number: INodeNo, _: FileHandle, _data_alone: bool, reply: ReplyEmpty) {
        let done = self.shared.change(Operation::SyncFolder(number.0), |tree| tree.sync_folder(number.0));
        answer(reply, done);
    }

    fn readdir(&self, _: &Request, number: INodeNo, _: FileHandle, offset: u64, mut reply: ReplyDirectory) {
        let entries = self.shared.look(|tree| {
            let named = tree.folder(number.0)?.seen.iter().map(|(name, number)| {
                let is_folder = matches!(tree.node(*number)?.kind, Kind::Folder(_));
                let kind = if is_folder { FileType::Directory } else { FileType::RegularFile };
                Ok((*number, kind, name.clone()))
            });
            let dots = [".", ".."].map(|dots| Ok((ROOT, FileType::Directory, dots.into())));
            dots.into_iter().chain(named).collect::<Result<Vec<_>, Errno>>()
        });
        match entries {
            Ok(entries) => {
                let skipped = usize::try_from(offset).unwrap_or(usize::MAX);
                for ((number, kind, name), next) in entries.into_iter().zip(1_u64..).skip(skipped) {
                    if reply.add(INodeNo(number), next, kind, name) {
                        break;
                    }
                }
                reply.ok();
            }
            Err(errno) => reply.error(refusal(errno)),
        }
    }
}

impl Calls {
    fn sync(&self, number: Number) -> Result<(), Errno> {
        self.shared.change(Operation::Sync(number), |tree| {
            tree.file(number)?.sync();
            Ok(())
        })
    }
}

fn open_flags(flags: i32) -> OFlags {
    OFlags::from_bits_retain(flags.cast_unsigned())
}
