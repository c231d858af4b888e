//! What a replica signed, reduced to what may not be said twice: a slot to speak for, and what was said. (PROTOCOL §2.6)

use quorate_crypto::Digest;
use quorate_protocol::batch::batch_digest;
use quorate_protocol::certificate::Certificate;
use quorate_protocol::codec::{Blob, decode};
use quorate_protocol::message::{Message, NewView, SignedNewView, SignedViewChange, Statements, ViewChange};
use quorate_protocol::number::{Epoch, ReplicaId, Sequence, View};
use quorate_protocol::record::Record;
use quorate_protocol::statement::{Checkpoint, Commit, Prepare};

/// What a statement speaks for: a correct replica says one thing about it, ever.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// Which batch it accepts.
    Prepare(Epoch, View, Sequence),
    /// Which batch it holds prepared.
    Commit(Epoch, View, Sequence),
    /// Which root its state has.
    Checkpoint(Epoch, Sequence),
    /// How it asks for a view.
    ViewChange(Epoch, View),
    /// How a view of its begins.
    NewView(Epoch, View),
}

/// One thing that one replica signed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Said {
    /// Who.
    pub replica: ReplicaId,
    /// About what.
    pub subject: Subject,
    /// What: the batch, the root, or the digest of the bytes.
    pub digest: Digest,
}

/// A statement that has a subject.
pub trait HasSubject {
    /// What it speaks for, and what it says.
    fn subject(&self) -> (Subject, Digest);
}

impl HasSubject for Prepare {
    fn subject(&self) -> (Subject, Digest) {
        (Subject::Prepare(self.epoch, self.view, self.sequence), self.digest)
    }
}

impl HasSubject for Commit {
    fn subject(&self) -> (Subject, Digest) {
        (Subject::Commit(self.epoch, self.view, self.sequence), self.digest)
    }
}

impl HasSubject for Checkpoint {
    fn subject(&self) -> (Subject, Digest) {
        (Subject::Checkpoint(self.epoch, self.sequence), self.root)
    }
}

/// What `replica` says by `statement`.
pub fn said<S: HasSubject>(replica: ReplicaId, statement: &S) -> Said {
    let (subject, digest) = statement.subject();
    Said { replica, subject, digest }
}

/// Every signed statement of a replica that a message carries, whoever sends it.
pub fn in_message(message: &Message, members: u64) -> Vec<Said> {
    match message {
        Message::PrePrepare(proposal) => vec![said(proposal.vote.voter, &proposal.vote.statement)],
        Message::Prepare(vote) | Message::Conflict(vote) => vec![said(vote.voter, &vote.statement)],
        Message::Commit(vote) => vec![said(vote.voter, &vote.statement)],
        Message::Checkpoint(vote) => vec![said(vote.voter, &vote.statement)],
        Message::Stable(certificate) => in_certificate(certificate),
        Message::Decided(decided) => in_certificate(&decided.certificate),
        Message::ViewChange(signed) => in_view_change(signed),
        Message::NewView(signed) => in_new_view(signed, members).into_iter().collect(),
        Message::Statements(told) => in_statements(told, members),
        Message::Request(_) | Message::Status(_) | Message::Fetch(_) | Message::Batch(_) | Message::Part(_) => {
            Vec::new()
        }
    }
}

/// What a replica is told that it said.
fn in_statements(told: &Statements, members: u64) -> Vec<Said> {
    let mut all: Vec<Said> = told.prepares.iter().map(|vote| said(vote.voter, &vote.statement)).collect();
    all.extend(told.commits.iter().map(|vote| said(vote.voter, &vote.statement)));
    all.extend(told.checkpoints.iter().map(|vote| said(vote.voter, &vote.statement)));
    // Not what that rests on: it was said before, and may be forgotten since.
    all.extend(told.view_change.iter().filter_map(|signed| Some(of_view_change(signed, &view_change(signed)?))));
    all.extend(told.new_view.iter().filter_map(|signed| in_new_view(signed, members)));
    all
}

/// Every signed statement of `replica` itself that its record holds. The record of a new view counts as the replica's
/// own, whoever's primary signed it: it shows that the replica entered.
pub fn in_record(record: &Record, replica: ReplicaId, members: u64) -> Vec<Said> {
    let all = match record {
        Record::Accepted(vote, _) => vec![said(vote.voter, &vote.statement)],
        Record::Prepared(certificate, vote) => {
            let mut all = in_certificate(certificate);
            all.push(said(vote.voter, &vote.statement));
            all
        }
        Record::Committed(certificate) | Record::Learned(certificate, _) => in_certificate(certificate),
        Record::Stable(certificate) | Record::Epoch(_, certificate) => in_certificate(certificate),
        Record::Incarnation(_) | Record::Batch(..) => Vec::new(),
        Record::ViewChange(_, _, signed) => in_view_change(signed),
        Record::NewView(_, _, record) => {
            in_new_view(&record.new_view, members).into_iter().map(|said| Said { replica, ..said }).collect()
        }
    };
    all.into_iter().filter(|said| said.replica == replica).collect()
}

/// The statements of all who voted in a certificate.
pub fn in_certificate<S: HasSubject>(certificate: &Certificate<S>) -> Vec<Said> {
    certificate.votes.iter().map(|vote| said(vote.voter, &certificate.statement)).collect()
}

/// What a view change says, and whose votes it carries.
pub fn in_view_change(signed: &SignedViewChange) -> Vec<Said> {
    let Some(content) = view_change(signed) else {
        return Vec::new();
    };
    let mut all = vec![of_view_change(signed, &content)];
    all.extend(content.stable.iter().flat_map(in_certificate));
    all.extend(content.prepared.iter().flat_map(in_certificate));
    all
}

/// What a view change with this content says in the name of whoever asks for the view.
pub fn of_view_change(signed: &SignedViewChange, content: &ViewChange) -> Said {
    let subject = Subject::ViewChange(content.epoch, content.view);
    Said { replica: content.replica, subject, digest: name(&signed.body) }
}

/// What a new view says, in the name of its primary.
pub fn in_new_view(signed: &SignedNewView, members: u64) -> Option<Said> {
    let content = new_view(signed)?;
    let subject = Subject::NewView(content.epoch, content.view);
    Some(Said { replica: primary(content.epoch, content.view, members), subject, digest: name(&signed.body) })
}

/// What a signed view change holds, if it is one.
pub fn view_change(signed: &SignedViewChange) -> Option<ViewChange> {
    decode(signed.body.bytes()).ok()
}

/// What a signed new view holds, if it is one.
pub fn new_view(signed: &SignedNewView) -> Option<NewView> {
    decode(signed.body.bytes()).ok()
}

/// The primary of a view among `members`, restated here: checkers ask no production code. (PROTOCOL §1)
pub fn primary(epoch: Epoch, view: View, members: u64) -> ReplicaId {
    let index = (epoch.value() % members + view.value() % members) % members;
    ReplicaId::new(u8::try_from(index).expect("a configuration has at most 31 members"))
}

/// Bytes by a digest: which domain it is made under does not matter here.
fn name(body: &Blob) -> Digest {
    batch_digest(body.bytes())
}
