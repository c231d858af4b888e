//! The disk, mounted, as a process uses it.

use std::fs::{File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::thread;

use super::*;
use crate::{LIMIT, wait_until};

/// A disk and the folder that it lies in, which goes after it.
fn disk() -> Option<(tempfile::TempDir, PowerDisk)> {
    let folder = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let path = folder.path().join("disk");
    fs::create_dir(&path).unwrap();
    let disk = PowerDisk::mount(&path)?;
    Some((folder, disk))
}

/// What a cut leaves, by a seed.
fn cut(disk: &PowerDisk, seed: u64) -> Forgotten {
    disk.cut();
    let forgotten = disk.forget(seed);
    disk.switch_on();
    forgotten
}

#[test]
fn files_and_folders_are_made_read_renamed_and_removed_as_anywhere() {
    let Some((folder, _disk)) = disk() else { return };
    let root = folder.path().join("disk");
    fs::create_dir(root.join("a")).unwrap();
    let bytes: Vec<u8> = (0..300_000_u32).map(|number| number.to_le_bytes()[0]).collect();
    fs::write(root.join("a/file"), &bytes).unwrap();
    assert!(fs::read(root.join("a/file")).unwrap() == bytes);
    fs::rename(root.join("a/file"), root.join("b")).unwrap();
    assert!(fs::remove_dir(root.join("b")).is_err() && fs::remove_dir(root.join("a")).is_ok());
    let mut file = OpenOptions::new().append(true).read(true).open(root.join("b")).unwrap();
    file.write_all(b"more").unwrap();
    assert_eq!(file.metadata().unwrap().len(), 300_004);
    file.set_len(10).unwrap();
    fs::remove_file(root.join("b")).unwrap();
    let mut found = [0; 20];
    assert_eq!((file.read_at(&mut found, 0).unwrap(), &found[..10]), (10, &bytes[..10]), "what is open stays readable");
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    for number in 0..500 {
        fs::write(root.join(format!("{number}")), b"").unwrap();
    }
    assert_eq!(fs::read_dir(&root).unwrap().count(), 500);
    file.try_lock().unwrap();
}

#[test]
fn what_stood_in_the_folder_is_there_and_durable() {
    let folder = tempfile::Builder::new().prefix("quorate-test-").tempdir().unwrap();
    let path = folder.path().join("disk");
    fs::create_dir_all(path.join("log/empty")).unwrap();
    fs::write(path.join("log/file"), b"text").unwrap();
    let Some(disk) = PowerDisk::mount(&path) else { return };
    for seed in 0..8 {
        cut(&disk, seed);
        assert_eq!(fs::read(path.join("log/file")).unwrap(), b"text");
        assert!(path.join("log/empty").is_dir());
    }
}

#[test]
fn after_a_cut_there_is_what_was_synced_by_whichever_call() {
    let Some((folder, disk)) = disk() else { return };
    let root = folder.path().join("disk");
    let path = root.join("file");
    let file = File::create(&path).unwrap();
    File::open(&root).unwrap().sync_all().unwrap();
    let state = |disk: &PowerDisk| (0..20).map(|seed| (cut(disk, seed), fs::read(&path).unwrap())).collect::<Vec<_>>();
    file.write_all_at(b"lost or kept", 0).unwrap();
    file.sync_data().unwrap();
    assert_eq!(disk.unsynced(), 0);
    assert!(state(&disk).iter().all(|(_, found)| found == b"lost or kept"));
    let file = OpenOptions::new().write(true).open(&path).unwrap();
    let mut met = std::collections::BTreeSet::new();
    for seed in 0..20 {
        file.write_all_at(b"LOST", 0).unwrap();
        assert_eq!(disk.unsynced(), 1);
        cut(&disk, seed);
        met.insert(fs::read(&path).unwrap());
        file.write_all_at(b"lost", 0).unwrap();
        file.sync_all().unwrap();
    }
    assert_eq!(met.into_iter().collect::<Vec<_>>(), [b"LOST or kept", b"lost or kept"]);
    let mut dsync = OpenOptions::new();
    std::os::unix::fs::OpenOptionsExt::custom_flags(&mut dsync, rustix::fs::OFlags::DSYNC.bits().cast_signed());
    dsync.write(true).open(&path).unwrap().write_all_at(b"KEPT", 8).unwrap();
    assert!(state(&disk).iter().all(|(_, found)| found == b"lost or KEPT"));
}

#[test]
fn whoever_writes_when_power_fails_gets_no_answer_until_the_disk_is_gone() {
    let Some((folder, disk)) = disk() else { return };
    let path = folder.path().join("disk/file");
    fs::write(&path, b"").unwrap();
    disk.cut_after(Which::Writes, 3);
    let writer = thread::spawn(move || {
        let file = OpenOptions::new().write(true).open(&path).unwrap();
        (0..100_u64).take_while(|number| file.write_all_at(b"x", *number).is_ok()).count()
    });
    wait_until("power to fail", LIMIT, || disk.is_cut());
    assert!(!writer.is_finished());
    disk.forget(1);
    assert_eq!(writer.join().unwrap(), 3);
    assert!(fs::metadata(folder.path().join("disk/file")).is_err());
    disk.switch_on();
    assert!(fs::read_dir(folder.path().join("disk")).is_ok());
}

#[test]
fn an_operation_is_made_to_fail_once_or_for_good() {
    let Some((folder, disk)) = disk() else { return };
    let file = File::create(folder.path().join("disk/file")).unwrap();
    let (told, hears) = std::sync::mpsc::channel();
    disk.fail_after(Which::Syncs, 1, false, 1, move || told.send(()).unwrap());
    file.write_all_at(b"x", 0).unwrap();
    file.sync_data().unwrap();
    assert!(hears.try_recv().is_err() && disk.failed().is_none());
    file.write_all_at(b"y", 0).unwrap();
    assert_eq!(file.sync_data().unwrap_err().raw_os_error(), Some(Errno::IO.raw_os_error()));
    assert!(hears.try_recv().is_ok());
    assert_eq!(disk.failed().as_deref(), Some("sync /file"));
    file.sync_data().unwrap();
    disk.fail_after(Which::Writes, 0, true, 1, || {});
    assert!(file.write_all_at(b"y", 0).is_err() && file.write_all_at(b"y", 0).is_err() && file.sync_data().is_err());
    disk.switch_on();
    file.write_all_at(b"z", 0).unwrap();
}

#[test]
fn what_cannot_be_followed_is_refused() {
    let Some((folder, _disk)) = disk() else { return };
    let path = folder.path().join("disk/file");
    fs::write(&path, b"x").unwrap();
    assert!(fs::hard_link(&path, folder.path().join("disk/other")).is_err());
    assert!(std::os::unix::fs::symlink("file", folder.path().join("disk/other")).is_err());
}
