//! Files and folders: what processes see, and what the disk holds.
//!
//! A name is durable once its folder was synced, and only then: that a file was synced says nothing of its name. Changes of
//! names that were not synced are kept or lost each on its own, but for those of one name or one file, which happen in
//! order.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{OsStr, OsString};

use rustix::io::Errno;

use super::file::{Fate, File, Forgotten};
use crate::draw::Draw;

/// The folder above all.
pub(super) const ROOT: u64 = 1;

/// A file's or folder's number. None is used twice.
pub(super) type Number = u64;

/// A name in a folder.
type Name = (Number, OsString);

#[derive(Debug, Clone)]
pub(super) enum Kind {
    File(File),
    Folder(Folder),
}

#[derive(Debug, Clone, Default)]
pub(super) struct Folder {
    pub(super) seen: BTreeMap<OsString, Number>,
    durable: BTreeMap<OsString, Number>,
}

#[derive(Debug, Clone)]
pub(super) struct Node {
    pub(super) kind: Kind,
    /// What it may be used for, as the system asks.
    pub(super) mode: u16,
    /// How often the system has looked it up and not forgotten it.
    lookups: u64,
}

/// A change of names: all of it happens, or none.
#[derive(Debug, Clone)]
struct Change {
    removed: Option<Name>,
    /// With what stood there before, if something did.
    inserted: Option<(Name, Number)>,
    /// Files and folders that it is about.
    about: Vec<Number>,
}

impl Change {
    fn names(&self) -> impl Iterator<Item = &Name> {
        self.removed.iter().chain(self.inserted.iter().map(|(name, _)| name))
    }

    /// Whether this may not happen unless a change that has to do with these has happened.
    fn rests_on(&self, names: &BTreeSet<Name>, numbers: &BTreeSet<Number>) -> bool {
        self.names().any(|name| names.contains(name)) || self.about.iter().any(|number| numbers.contains(number))
    }
}

/// All files and folders.
#[derive(Debug, Clone)]
pub(super) struct Tree {
    nodes: BTreeMap<Number, Node>,
    next: Number,
    changes: Vec<Change>,
}

type Done<T> = Result<T, Errno>;

impl Tree {
    pub(super) fn new() -> Self {
        let root = Node { kind: Kind::Folder(Folder::default()), mode: 0o700, lookups: 1 };
        Self { nodes: BTreeMap::from([(ROOT, root)]), next: ROOT + 1, changes: Vec::new() }
    }

    pub(super) fn node(&self, number: Number) -> Done<&Node> {
        self.nodes.get(&number).ok_or(Errno::NOENT)
    }

    pub(super) fn set_mode(&mut self, number: Number, mode: u16) -> Done<()> {
        self.nodes.get_mut(&number).ok_or(Errno::NOENT)?.mode = mode;
        Ok(())
    }

    pub(super) fn file(&mut self, number: Number) -> Done<&mut File> {
        match &mut self.nodes.get_mut(&number).ok_or(Errno::NOENT)?.kind {
            Kind::File(file) => Ok(file),
            Kind::Folder(_) => Err(Errno::ISDIR),
        }
    }

    pub(super) fn folder(&self, number: Number) -> Done<&Folder> {
        match &self.node(number)?.kind {
            Kind::Folder(folder) => Ok(folder),
            Kind::File(_) => Err(Errno::NOTDIR),
        }
    }

    fn folder_mut(&mut self, number: Number) -> Done<&mut Folder> {
        match &mut self.nodes.get_mut(&number).ok_or(Errno::NOENT)?.kind {
            Kind::Folder(folder) => Ok(folder),
            Kind::File(_) => Err(Errno::NOTDIR),
        }
    }

    pub(super) fn find(&self, folder: Number, name: &OsStr) -> Done<Number> {
        self.folder(folder)?.seen.get(name).copied().ok_or(Errno::NOENT)
    }

    /// The system looked one up.
    pub(super) fn look_up(&mut self, number: Number) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups += 1;
        }
    }

    /// The system forgets so many of its looks.
    pub(super) fn forget_lookups(&mut self, number: Number, count: u64) {
        if let Some(node) = self.nodes.get_mut(&number) {
            node.lookups = node.lookups.saturating_sub(count);
        }
    }

    pub(super) fn make(&mut self, folder: Number, name: &OsStr, kind: Kind, mode: u16) -> Done<Number> {
        if self.folder(folder)?.seen.contains_key(name) {
            return Err(Errno::EXIST);
        }
        let number = self.next;
        self.next += 1;
        self.nodes.insert(number, Node { kind, mode, lookups: 0 });
        let inserted = Some(((folder, name.to_owned()), number));
        self.change(Change { removed: None, inserted, about: vec![number] })?;
        Ok(number)
    }

    pub(super) fn remove(&mut self, folder: Number, name: &OsStr, is_folder: bool) -> Done<()> {
        let number = self.find(folder, name)?;
        match &self.node(number)?.kind {
            Kind::File(_) if is_folder => return Err(Errno::NOTDIR),
            Kind::Folder(_) if !is_folder => return Err(Errno::ISDIR),
            Kind::Folder(found) if !found.seen.is_empty() => return Err(Errno::NOTEMPTY),
            _ => {}
        }
        self.change(Change { removed: Some((folder, name.to_owned())), inserted: None, about: vec![number] })
    }

    pub(super) fn rename(&mut self, from: (Number, &OsStr), to: (Number, &OsStr)) -> Done<()> {
        let number = self.find(from.0, from.1)?;
        let mut about = vec![number];
        if let Ok(replaced) = self.find(to.0, to.1) {
            if replaced == number {
                return Ok(());
            }
            match (&self.node(number)?.kind, &self.node(replaced)?.kind) {
                (Kind::Folder(_), Kind::File(_)) => return Err(Errno::NOTDIR),
                (Kind::File(_), Kind::Folder(_)) => return Err(Errno::ISDIR),
                (Kind::Folder(_), Kind::Folder(found)) if !found.seen.is_empty() => return Err(Errno::NOTEMPTY),
                _ => about.push(replaced),
            }
        }
        let name = |(folder, name): (Number, &OsStr)| (folder, name.to_owned());
        self.change(Change { removed: Some(name(from)), inserted: Some((name(to), number)), about })
    }

    fn change(&mut self, change: Change) -> Done<()> {
        if let Some((folder, name)) = &change.removed {
            self.folder_mut(*folder)?.seen.remove(name);
        }
        if let Some(((folder, name), number)) = &change.inserted {
            self.folder_mut(*folder)?.seen.insert(name.clone(), *number);
        }
        self.changes.push(change);
        Ok(())
    }

    /// Makes the names in a folder durable, and what that rests on.
    pub(super) fn sync_folder(&mut self, folder: Number) -> Done<()> {
        self.folder(folder)?;
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        let mut is_synced = vec![false; self.changes.len()];
        for (change, is_synced) in self.changes.iter().zip(&mut is_synced).rev() {
            *is_synced = change.names().any(|(within, _)| *within == folder) || change.rests_on(&names, &numbers);
            if *is_synced {
                names.extend(change.names().cloned());
                numbers.extend(&change.about);
            }
        }
        let changes = std::mem::take(&mut self.changes);
        for (change, is_synced) in changes.into_iter().zip(is_synced) {
            if is_synced {
                self.reach(&change);
            } else {
                self.changes.push(change);
            }
        }
        self.drop_what_nobody_finds();
        Ok(())
    }

    /// Makes everything durable.
    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            self.reach(&change);
        }
        for node in self.nodes.values_mut() {
            if let Kind::File(file) = &mut node.kind {
                file.sync();
            }
        }
        self.drop_what_nobody_finds();
    }

    /// A change reaches the disk.
    fn reach(&mut self, change: &Change) {
        if let Some((folder, name)) = &change.removed
            && let Ok(folder) = self.folder_mut(*folder)
        {
            folder.durable.remove(name);
        }
        if let Some(((folder, name), number)) = &change.inserted
            && let Ok(folder) = self.folder_mut(*folder)
        {
            folder.durable.insert(name.clone(), *number);
        }
    }

    /// Where one stands, for a reader.
    pub(super) fn path_of(&self, number: Number) -> String {
        let mut path = String::new();
        let mut number = number;
        // Deeper than any folder here.
        for _ in 0..32 {
            let above = self.nodes.iter().find_map(|(above, node)| match &node.kind {
                Kind::Folder(folder) => {
                    let (name, _) = folder.seen.iter().find(|(_, within)| **within == number)?;
                    Some((*above, name))
                }
                Kind::File(_) => None,
            });
            let Some((above, name)) = above else { break };
            path = format!("/{}{path}", name.to_string_lossy());
            number = above;
        }
        path
    }

    /// How many changes are not synced.
    pub(super) fn unsynced(&self) -> usize {
        let files = self.nodes.values().map(|node| match &node.kind {
            Kind::File(file) => file.unsynced(),
            Kind::Folder(_) => 0,
        });
        self.changes.len() + files.sum::<usize>()
    }

    /// Power fails.
    pub(super) fn forget(&mut self, draw: &mut Draw) -> Forgotten {
        let mut forgotten = Forgotten::default();
        let fate = match draw.below(8) {
            0 | 1 => Fate::Lost,
            2 => Fate::Kept,
            _ => Fate::Drawn,
        };
        self.forget_names(fate, draw, &mut forgotten);
        for node in self.nodes.values_mut() {
            match &mut node.kind {
                Kind::File(file) => file.forget(fate, draw, &mut forgotten),
                Kind::Folder(folder) => folder.seen.clone_from(&folder.durable),
            }
            node.lookups = 0;
        }
        self.drop_what_nobody_finds();
        forgotten
    }

    fn forget_names(&mut self, fate: Fate, draw: &mut Draw, forgotten: &mut Forgotten) {
        // Some file systems write their changes in order.
        let in_order = (fate == Fate::Drawn && draw.one_in(2)).then(|| draw.below(self.changes.len() as u64 + 1));
        let (mut names, mut numbers) = (BTreeSet::new(), BTreeSet::new());
        for (change, at) in std::mem::take(&mut self.changes).into_iter().zip(0..) {
            let is_kept = match (fate, in_order) {
                (Fate::Lost, _) => false,
                (Fate::Kept, _) => true,
                (Fate::Drawn, Some(end)) => at < end,
                (Fate::Drawn, None) => !change.rests_on(&names, &numbers) && draw.one_in(2),
            };
            if is_kept {
                forgotten.kept += 1;
                self.reach(&change);
            } else {
                forgotten.lost += 1;
                names.extend(change.names().cloned());
                numbers.extend(change.about);
            }
        }
    }

    /// Drops files that have no name, neither seen nor durable nor on the way, and that no process has open.
    fn drop_what_nobody_finds(&mut self) {
        let mut found = BTreeSet::from([ROOT]);
        found.extend(self.changes.iter().flat_map(|change| &change.about));
        found.extend(self.nodes.iter().filter(|(_, node)| node.lookups > 0).map(|(number, _)| number));
        let mut waiting: Vec<Number> = found.iter().copied().collect();
        while let Some(number) = waiting.pop() {
            let Ok(folder) = self.folder(number) else { continue };
            let within: Vec<Number> = folder.seen.values().chain(folder.durable.values()).copied().collect();
            waiting.extend(within.into_iter().filter(|number| found.insert(*number)));
        }
        self.nodes.retain(|number, _| found.contains(number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> OsString {
        text.into()
    }

    fn make(tree: &mut Tree, folder: Number, text: &str) -> Number {
        tree.make(folder, &name(text), Kind::File(File::default()), 0o600).unwrap()
    }

    fn names(tree: &Tree) -> Vec<String> {
        tree.folder(ROOT).unwrap().seen.keys().map(|name| name.to_str().unwrap().to_owned()).collect()
    }

    /// What names are found after a power cut, over many seeds.
    fn found(tree: &Tree) -> BTreeSet<Vec<String>> {
        let after = |seed| {
            let mut tree = tree.clone();
            tree.forget(&mut Draw::of(seed));
            names(&tree)
        };
        (0..500).map(after).collect()
    }

    fn set(all: &[&[&str]]) -> BTreeSet<Vec<String>> {
        all.iter().map(|names| names.iter().map(|name| (*name).to_owned()).collect()).collect()
    }

    #[test]
    fn a_name_is_durable_when_its_folder_was_synced_and_not_when_its_file_was() {
        let mut tree = Tree::new();
        let file = make(&mut tree, ROOT, "a");
        tree.file(file).unwrap().sync();
        assert_eq!(found(&tree), set(&[&[], &["a"]]));
        tree.sync_folder(ROOT).unwrap();
        assert_eq!(found(&tree), set(&[&["a"]]));
    }

    #[test]
    fn a_rename_happens_or_does_not_and_never_loses_both_names() {
        let mut tree = Tree::new();
        let (old, new) = (make(&mut tree, ROOT, "state"), make(&mut tree, ROOT, "state.new"));
        tree.file(old).unwrap().write(0, b"old");
        tree.file(new).unwrap().write(0, b"new");
        tree.file(old).unwrap().sync();
        tree.file(new).unwrap().sync();
        tree.sync_folder(ROOT).unwrap();
        tree.rename((ROOT, &name("state.new")), (ROOT, &name("state"))).unwrap();
        assert_eq!(found(&tree), set(&[&["state"], &["state", "state.new"]]));
        let mut contents = BTreeSet::new();
        for seed in 0..100 {
            let mut tree = tree.clone();
            tree.forget(&mut Draw::of(seed));
            let number = tree.find(ROOT, &name("state")).unwrap();
            contents.insert((names(&tree).len(), tree.file(number).unwrap().read(0, 9)));
        }
        assert_eq!(contents, BTreeSet::from([(1, b"new".to_vec()), (2, b"old".to_vec())]));
    }

    #[test]
    fn changes_of_different_files_are_lost_in_any_order_and_those_of_one_in_theirs() {
        let mut tree = Tree::new();
        make(&mut tree, ROOT, "a");
        make(&mut tree, ROOT, "b");
        tree.rename((ROOT, &name("a")), (ROOT, &name("c"))).unwrap();
        tree.rename((ROOT, &name("c")), (ROOT, &name("d"))).unwrap();
        let of_a: [&[&str]; 4] = [&[], &["a"], &["c"], &["d"]];
        let with_b = of_a.iter().map(|names| [names, &["b"][..]].concat());
        let mut expected = set(&of_a);
        expected.extend(with_b.map(|mut names| {
            names.sort_unstable();
            names.into_iter().map(str::to_owned).collect::<Vec<String>>()
        }));
        assert_eq!(found(&tree), expected);
    }

    #[test]
    fn a_sync_of_one_folder_brings_what_it_rests_on_and_nothing_else() {
        let mut tree = Tree::new();
        let folder = |tree: &mut Tree, text| tree.make(ROOT, &name(text), Kind::Folder(Folder::default()), 0o700);
        let (one, other) = (folder(&mut tree, "one").unwrap(), folder(&mut tree, "other").unwrap());
        tree.sync_folder(ROOT).unwrap();
        make(&mut tree, one, "a");
        make(&mut tree, one, "b");
        tree.rename((one, &name("a")), (other, &name("a"))).unwrap();
        tree.sync_folder(other).unwrap();
        tree.forget(&mut Draw::of(0));
        assert!(tree.find(other, &name("a")).is_ok() && tree.find(one, &name("a")).is_err());
        let mut lost = false;
        for seed in 0..50 {
            let mut tree = Tree::new();
            let one = folder(&mut tree, "one").unwrap();
            tree.sync_folder(ROOT).unwrap();
            make(&mut tree, one, "b");
            make(&mut tree, ROOT, "c");
            tree.sync_folder(ROOT).unwrap();
            tree.forget(&mut Draw::of(seed));
            assert!(tree.find(ROOT, &name("c")).is_ok());
            lost |= tree.find(one, &name("b")).is_err();
        }
        assert!(lost);
    }

    #[test]
    fn a_file_that_nobody_finds_is_dropped_and_one_whose_removal_is_lost_is_back_whole() {
        let mut tree = Tree::new();
        let file = make(&mut tree, ROOT, "a");
        tree.file(file).unwrap().write(0, b"text");
        tree.file(file).unwrap().sync();
        tree.sync_folder(ROOT).unwrap();
        tree.remove(ROOT, &name("a"), false).unwrap();
        assert_eq!(found(&tree), set(&[&[], &["a"]]));
        for seed in 0..50 {
            let mut tree = tree.clone();
            tree.forget(&mut Draw::of(seed));
            if tree.find(ROOT, &name("a")).is_ok() {
                assert_eq!(tree.file(file).unwrap().read(0, 9), b"text");
            } else {
                assert!(tree.node(file).is_err());
            }
        }
        tree.sync_folder(ROOT).unwrap();
        assert!(tree.node(file).is_err());
    }

    #[test]
    fn what_the_system_refuses_is_refused() {
        let mut tree = Tree::new();
        let folder = tree.make(ROOT, &name("folder"), Kind::Folder(Folder::default()), 0o700).unwrap();
        make(&mut tree, folder, "a");
        let refusal = |done: Done<()>| done.unwrap_err();
        assert_eq!(refusal(tree.remove(ROOT, &name("folder"), true)), Errno::NOTEMPTY);
        assert_eq!(refusal(tree.remove(ROOT, &name("folder"), false)), Errno::ISDIR);
        assert_eq!(refusal(tree.remove(folder, &name("a"), true)), Errno::NOTDIR);
        assert_eq!(refusal(tree.remove(folder, &name("b"), false)), Errno::NOENT);
        assert_eq!(refusal(tree.rename((folder, &name("a")), (ROOT, &name("folder")))), Errno::ISDIR);
        let kind = Kind::File(File::default());
        assert_eq!(refusal(tree.make(folder, &name("a"), kind, 0).map(drop)), Errno::EXIST);
    }
}
