//! A state that is fetched from three, of which one hands out anything: what is staged is what the certificate names.

use std::collections::BTreeMap;

use quorate_crypto::Digest;
use quorate_protocol::Input;
use quorate_protocol::codec::List;
use quorate_protocol::message::{Content, Entry, Message, Part, Want};
use quorate_protocol::output::Output;
use quorate_protocol::state::leaf_of;

use super::super::support::state::{LIMITS, application_root, content, leaves, wants};
use super::super::support::subject::Subject;
use super::super::support::transfer::{in_transfer_upon, status_at};
use super::super::support::{digest, slot};
use super::{ATTACKER, read};

/// The slot of the checkpoint that can be had, and of a later one, of which nobody has anything.
const TARGET: u64 = 4;
const LATER: u64 = 8;

/// What is asked for, and of whom.
type Question = (u8, u64, Want);

struct Transfer {
    subject: Subject,
    asked: Vec<Question>,
    protocol: Vec<Entry>,
    staged: BTreeMap<u32, Digest>,
    is_whole: bool,
}

thread_local! {
    static BEGUN: (Subject, Vec<Question>, Vec<Entry>) = {
        let (subject, outputs, protocol) = in_transfer_upon(&[ATTACKER, 2, 3], leaves(slot(2)), LIMITS);
        (subject, wants(&outputs), protocol)
    };
}

pub(crate) fn pieces(bytes: &[u8]) {
    fetch(bytes);
}

/// How many buckets such a transfer staged, and whether it came to its end.
pub(crate) fn fetch(mut bytes: &[u8]) -> (usize, bool) {
    let mut transfer = Transfer::begin();
    while let Some(([step, argument], rest)) = bytes.split_first_chunk() {
        bytes = transfer.step(*step, *argument, rest);
        if transfer.is_whole {
            break;
        }
    }
    (transfer.staged.len(), transfer.is_whole)
}

impl Transfer {
    fn begin() -> Self {
        let (subject, asked, protocol) = BEGUN.with(Clone::clone);
        Self { subject, asked, protocol, staged: BTreeMap::new(), is_whole: false }
    }

    /// Takes a step, and gives the bytes that are left.
    fn step<'a>(&mut self, step: u8, argument: u8, rest: &'a [u8]) -> &'a [u8] {
        match step % 8 {
            // Whoever is asked answers.
            0..=2 => {
                if let Some((from, sequence, want)) = self.take_question(argument, |_| true) {
                    let truth = content(slot(sequence), &self.protocol, &want);
                    self.hear(from, sequence, want, truth);
                }
            }
            // The attacker answers with something else.
            3 => {
                if let Some((_, sequence, want)) = self.take_question(argument, |from| from == ATTACKER) {
                    let truth = content(slot(sequence), &self.protocol, &want);
                    let (how, rest) = rest.split_at(rest.len().min(3));
                    self.hear(ATTACKER, sequence, want, changed(truth, how));
                    return rest;
                }
            }
            // It says anything.
            4 => {
                let (own, rest) = rest.split_at(rest.len().min(argument.into()));
                if let Some(Message::Part(part)) = read::<Message>(own) {
                    self.hear(ATTACKER, part.sequence.value(), part.want, part.content);
                }
                return rest;
            }
            5 => {
                let outputs = self.subject.pass(u64::from(argument) * 10);
                self.take(outputs);
            }
            6 => {
                let slots = if argument & 1 == 0 { TARGET } else { LATER };
                let outputs =
                    self.subject.hear([ATTACKER, 2, 3][usize::from(argument / 2) % 3], status_at(slots, slots));
                self.take(outputs);
            }
            _ => {
                let later = self.subject.group.stable(LATER, digest(8), &[0, 2, 3]);
                let outputs = self.subject.hear(ATTACKER, Message::Stable(later));
                self.take(outputs);
            }
        }
        rest
    }

    /// One of the questions to these, which is answered now. Nobody has anything of the later checkpoint.
    fn take_question(&mut self, index: u8, is_of: impl Fn(u8) -> bool) -> Option<Question> {
        let open = self.asked.iter().enumerate().filter(|(_, (from, sequence, _))| *sequence == TARGET && is_of(*from));
        let open: Vec<usize> = open.map(|(index, _)| index).collect();
        let place = open.get(usize::from(index) % open.len().max(1))?;
        Some(self.asked.remove(*place))
    }

    fn hear(&mut self, from: u8, sequence: u64, want: Want, content: Content) {
        let outputs = self.subject.hear(from, Message::Part(Part { sequence: slot(sequence), want, content }));
        self.take(outputs);
    }

    /// Whatever is staged belongs to the state that a quorum signed.
    fn take(&mut self, outputs: Vec<Output>) {
        self.asked.extend(wants(&outputs));
        for output in outputs {
            match output {
                Output::StageBuckets(buckets) => {
                    let truth = leaves(slot(TARGET));
                    for bucket in buckets {
                        assert_eq!(leaf_of(&bucket.entries), bucket.leaf, "bucket {}", bucket.number);
                        assert_eq!(truth[bucket.number as usize], bucket.leaf, "bucket {}", bucket.number);
                        self.staged.insert(bucket.number, bucket.leaf);
                    }
                }
                Output::StageEnd { sequence, protocol } => {
                    assert_eq!((sequence, &protocol), (slot(TARGET), &self.protocol));
                    let staged = (0..).zip(leaves(slot(2)));
                    let staged = staged.map(|(number, leaf)| self.staged.get(&number).copied().unwrap_or(leaf));
                    assert_eq!(staged.collect::<Vec<_>>(), leaves(slot(TARGET)));
                    let root = Some(application_root(slot(TARGET)));
                    let outputs = self.subject.step(Input::StateStaged { sequence, application_root: root });
                    assert!(outputs.contains(&Output::StageInstall), "{outputs:?}");
                    self.is_whole = true;
                }
                _ => {}
            }
        }
    }
}

/// The truth, with something changed.
fn changed(truth: Content, how: &[u8]) -> Content {
    let [how, place, value] = [0, 1, 2].map(|index| how.get(index).copied().unwrap_or(0));
    match truth {
        Content::Crown(digests) => Content::Crown(changed_digests(digests, how, place, value)),
        Content::Leaves(digests) => Content::Leaves(changed_digests(digests, how, place, value)),
        Content::Protocol { entries, is_last } => Content::Protocol {
            entries: changed_entries(entries, how, place, value),
            is_last: is_last ^ (how & 8 != 0),
        },
        Content::Buckets { entries, whole } => {
            let whole = if how & 8 == 0 { whole } else { u16::from(value) };
            Content::Buckets { entries: changed_entries(entries, how, place, value), whole }
        }
    }
}

fn changed_digests<const MAX: usize>(list: List<Digest, MAX>, how: u8, place: u8, value: u8) -> List<Digest, MAX> {
    let mut digests = list.into_vec();
    let at = usize::from(place) % digests.len().max(1);
    match (how % 4, digests.get(at).copied()) {
        (0, Some(_)) => digests[at] = digest(value),
        (1, Some(_)) => drop(digests.remove(at)),
        (2, Some(same)) => digests.push(same),
        (3, Some(_)) => {
            let other = usize::from(value) % digests.len();
            digests.swap(at, other);
        }
        _ => digests.push(digest(value)),
    }
    List::new(digests).unwrap_or_else(List::empty)
}

fn changed_entries<const MAX: usize>(list: List<Entry, MAX>, how: u8, place: u8, value: u8) -> List<Entry, MAX> {
    let mut entries = list.into_vec();
    let at = usize::from(place) % entries.len().max(1);
    match (how % 8, entries.get(at).cloned()) {
        (0, Some(_)) => drop(entries.remove(at)),
        (1, Some(same)) => entries.push(same),
        (2, Some(_)) => entries[at].value = [value][..].into(),
        (3, Some(_)) => entries[at].key = [value][..].into(),
        (4, Some(_)) => {
            let other = usize::from(value) % entries.len();
            entries.swap(at, other);
        }
        (5, Some(same)) => entries.insert(0, same),
        // Only what is said of them is another.
        (6, _) => {}
        _ => entries.push(Entry { key: [place][..].into(), value: [value][..].into() }),
    }
    List::new(entries).unwrap_or_else(List::empty)
}
