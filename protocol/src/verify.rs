//! From what somebody said to what counts: signatures and forms are checked here, before the core sees a message.
//!
//! [`Verified`] can be made nowhere else; the core takes nothing else and checks no signature itself. A message with one
//! bad part is refused whole. (PROTOCOL §3)

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec::Vec;
use core::ops::Deref;

use quorate_crypto::{Digest, Item, Signature};

use crate::batch::{Batch, Hashed, InvalidBatch, ParsedRequest, SignedRequest};
use crate::certificate::{Certificate, CommittedCertificate, PreparedCertificate, StableCertificate};
use crate::codec::{CodecError, decode};
use crate::configuration::Configuration;
use crate::evidence::Evidence;
use crate::message::{
    CheckedNewView, CheckedViewChange, Decided, Fetch, Message, NewView, Part, PrePrepare, SharedNewView,
    SharedViewChange, SignedNewView, SignedViewChange, Statements, Status, ViewChange, new_view_digest,
    view_change_digest,
};
use crate::number::{Epoch, ReplicaId, Sequence, View};
use crate::statement::{Checkpoint, Commit, Prepare, Statement, Vote};

/// What checks signatures: the ZIP 215 rule in the node, a stand-in for unforgeable signatures in most simulations.
pub trait Verifier {
    /// Whether all signatures are valid.
    ///
    /// # Errors
    /// The index of the first that is not.
    fn verify(&mut self, items: &[Item]) -> Result<(), usize>;
}

/// Something whose signatures and form were checked against one configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<T> {
    content: T,
    epoch: Epoch,
}

impl<T> Verified<T> {
    /// The epoch whose keys were used.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// What was checked.
    pub fn into_content(self) -> T {
        self.content
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.content
    }
}

/// A peer's message, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Payload {
    /// See [`Message::Request`].
    Request(ParsedRequest),
    /// See [`Message::PrePrepare`].
    PrePrepare(Vote<Prepare>, Batch),
    /// See [`Message::Prepare`].
    Prepare(Vote<Prepare>),
    /// See [`Message::Commit`].
    Commit(Vote<Commit>),
    /// See [`Message::Checkpoint`].
    Checkpoint(Vote<Checkpoint>),
    /// See [`Message::Stable`].
    Stable(StableCertificate),
    /// See [`Message::ViewChange`].
    ViewChange(SharedViewChange),
    /// See [`Message::NewView`].
    NewView(SharedNewView),
    /// See [`Message::Status`].
    Status(Status),
    /// See [`Message::Fetch`].
    Fetch(Fetch),
    /// See [`Message::Batch`].
    Batch(Sequence, Batch),
    /// See [`Message::Decided`].
    Decided(CommittedCertificate, Batch),
    /// See [`Message::Statements`].
    Statements(Spoken),
    /// See [`Message::Part`]: its entries count only once the whole state has the certified root.
    Part(Part),
    /// See [`Message::Conflict`]: signed by its voter, whoever sent it.
    Conflict(Vote<Prepare>),
}

/// What one member signed in an epoch, as another knows it, checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Spoken {
    /// The question that it answers.
    pub token: u64,
    /// The epoch of all of it.
    pub epoch: Epoch,
    /// Who signed it all; none if there is nothing.
    pub by: Option<ReplicaId>,
    /// Votes to accept a batch.
    pub prepares: Vec<Vote<Prepare>>,
    /// Votes to commit a batch.
    pub commits: Vec<Vote<Commit>>,
    /// Votes for checkpoints.
    pub checkpoints: Vec<Vote<Checkpoint>>,
    /// The view that it asked for, and the digest of how it did.
    pub view_change: Option<(View, Digest)>,
    /// The view that it began, and the digest of how it did.
    pub new_view: Option<(View, Digest)>,
    /// How far the one who tells came.
    pub reached: Sequence,
    /// Those two as they were signed.
    pub signed: (Option<SignedViewChange>, Option<SignedNewView>),
}

/// Why a message counts for nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Invalid {
    /// It is not an encoding of anything.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// It holds a batch or request that is not one of this configuration.
    #[error(transparent)]
    Batch(#[from] InvalidBatch),
    /// A signature in it is not valid.
    #[error("an invalid signature")]
    Signature,
    /// It names a replica that is not a member.
    #[error("names replica {0}, which is no member")]
    NotAMember(ReplicaId),
    /// It speaks for another replica than the one that sent it.
    #[error("speaks for replica {0}, which did not send it")]
    Sender(ReplicaId),
    /// It belongs to another epoch, whose keys are not known here.
    #[error("belongs to epoch {0}")]
    Epoch(Epoch),
    /// A certificate in it lacks votes, or their order.
    #[error("a certificate without a quorum in order")]
    Certificate,
    /// The digest that it names is not that of the bytes it brings.
    #[error("a digest that is not that of the batch")]
    Digest,
    /// A view change or new view breaks its rules. (PROTOCOL §7)
    #[error("a view change or new view out of form: {0}")]
    Form(&'static str),
    /// The primary signed a batch that no correct primary proposes: proof against it. (PROTOCOL §4.3)
    #[error("a batch that proves its primary faulty")]
    Misbehaviour(Box<Evidence>),
}

/// A cursor or key that none of a state is.
const LONG_KEY: Invalid = Invalid::Codec(CodecError::Malformed("a key longer than any of a state"));

/// A view change or new view that says nothing.
const MALFORMED_HEAD: Invalid = Invalid::Codec(CodecError::Malformed("neither a view change nor a new view"));

/// Checks a peer's `message`, which the channel says `from` sent, with the keys of `configuration`.
///
/// # Errors
/// [`Invalid`] says why it counts for nothing.
pub fn verify(
    message: Message,
    from: ReplicaId,
    configuration: &Configuration,
    verifier: &mut dyn Verifier,
) -> Result<Verified<Payload>, Invalid> {
    let mut check = Check { configuration, items: Vec::new() };
    let payload = match message {
        Message::PrePrepare(pre_prepare) => return verify_pre_prepare(pre_prepare, configuration, verifier),
        Message::Request(signed) => Payload::Request(check.request(signed)?),
        Message::Prepare(vote) => Payload::Prepare(check.vote_of(vote, vote.statement.epoch, from)?),
        Message::Commit(vote) => Payload::Commit(check.vote_of(vote, vote.statement.epoch, from)?),
        Message::Checkpoint(vote) => Payload::Checkpoint(check.vote_of(vote, vote.statement.epoch, from)?),
        // One of a later epoch, with the same members, tells this replica that it is behind.
        Message::Stable(certificate) if certificate.statement.epoch >= configuration.epoch() => {
            check.checkpoint(&certificate)?;
            Payload::Stable(certificate)
        }
        Message::Stable(certificate) => {
            check.stable(&certificate)?;
            Payload::Stable(certificate)
        }
        Message::ViewChange(signed) => Payload::ViewChange(Arc::new(check.view_change(signed)?)),
        Message::NewView(signed) => Payload::NewView(Arc::new(check.new_view(signed)?)),
        // One of another epoch tells that its sender, or this replica, is behind.
        Message::Status(status) => Payload::Status(status),
        Message::Fetch(fetch) if !fetch.is_within_bounds() => return Err(LONG_KEY),
        Message::Fetch(fetch) => Payload::Fetch(fetch),
        Message::Batch(fetched) => {
            // It counts only for a digest that a weak quorum accepted, so a correct member checked the clients' signatures.
            Payload::Batch(fetched.sequence, Batch::parse(fetched.batch.into_bytes(), configuration)?)
        }
        Message::Decided(decided) => check.decided(decided)?,
        Message::Statements(statements) => Payload::Statements(check.statements(statements)?),
        Message::Conflict(vote) => {
            check.epoch(vote.statement.epoch)?;
            check.vote(&vote)?;
            Payload::Conflict(vote)
        }
        Message::Part(part) if !part.is_within_bounds() => return Err(LONG_KEY),
        Message::Part(part) => Payload::Part(part),
    };
    verifier.verify(&check.items).or(Err(Invalid::Signature))?;
    Ok(Verified { content: payload, epoch: configuration.epoch() })
}

/// Checks clients' requests together, which costs less than one at a time.
pub fn verify_requests(
    requests: Vec<SignedRequest>,
    configuration: &Configuration,
    verifier: &mut dyn Verifier,
) -> Vec<Result<Verified<ParsedRequest>, Invalid>> {
    let epoch = configuration.epoch();
    let mut results: Vec<Result<Verified<ParsedRequest>, Invalid>> = requests
        .into_iter()
        .map(|signed| Ok(Verified { content: ParsedRequest::parse(signed, configuration)?, epoch }))
        .collect();
    let open: Vec<usize> = (0..results.len()).filter(|&index| results[index].is_ok()).collect();
    let items: Vec<Item> =
        results.iter().flatten().map(|request| request.signature_item(configuration.cluster())).collect();
    let Err(first) = verifier.verify(&items) else { return results };
    results[open[first]] = Err(Invalid::Signature);
    // Those before it are valid. Each of the others is asked about once, alone: to go on with all that are left after each
    // bad one would cost the square of what a client may make bad.
    for (index, item) in open.into_iter().zip(&items).skip(first + 1) {
        if verifier.verify(core::slice::from_ref(item)).is_err() {
            results[index] = Err(Invalid::Signature);
        }
    }
    results
}

/// A pre-prepare whose vote is valid but whose batch is not proves its primary faulty, so the two are told apart.
fn verify_pre_prepare(
    pre_prepare: PrePrepare,
    configuration: &Configuration,
    verifier: &mut dyn Verifier,
) -> Result<Verified<Payload>, Invalid> {
    let PrePrepare { vote, batch: body } = pre_prepare;
    let mut check = Check { configuration, items: Vec::new() };
    check.epoch(vote.statement.epoch)?;
    check.vote(&vote)?;
    if vote.voter != configuration.primary(vote.statement.view) {
        return Err(Invalid::Sender(vote.voter));
    }
    let hashed = Hashed::new(body.into_bytes());
    if hashed.digest() != vote.statement.digest {
        return Err(Invalid::Digest);
    }
    let body = hashed.body().clone();
    let proof = |body| Invalid::Misbehaviour(Box::new(Evidence::InvalidBatch { vote, batch: body }));
    let Ok(batch) = hashed.parse(configuration) else {
        verifier.verify(&check.items).or(Err(Invalid::Signature))?;
        return Err(proof(body.into()));
    };
    check.client_signatures(&batch);
    match verifier.verify(&check.items) {
        Ok(()) => Ok(Verified { content: Payload::PrePrepare(vote, batch), epoch: configuration.epoch() }),
        Err(0) => Err(Invalid::Signature),
        Err(_) => Err(proof(body.into())),
    }
}

/// The forms are checked at once, the signatures gathered for one batch.
struct Check<'a> {
    configuration: &'a Configuration,
    items: Vec<Item>,
}

impl Check<'_> {
    fn epoch(&self, epoch: Epoch) -> Result<(), Invalid> {
        if epoch == self.configuration.epoch() { Ok(()) } else { Err(Invalid::Epoch(epoch)) }
    }

    fn signature<S: Statement>(
        &mut self,
        statement: &S,
        voter: ReplicaId,
        signature: Signature,
    ) -> Result<(), Invalid> {
        let digest = statement.signed_digest(self.configuration.cluster());
        self.signature_of_digest(digest, voter, signature)
    }

    fn signature_of_digest(&mut self, digest: Digest, voter: ReplicaId, signature: Signature) -> Result<(), Invalid> {
        let key = self.configuration.member(voter).ok_or(Invalid::NotAMember(voter))?.key;
        self.items.push(Item { key, digest, signature });
        Ok(())
    }

    fn vote<S: Statement>(&mut self, vote: &Vote<S>) -> Result<(), Invalid> {
        self.signature(&vote.statement, vote.voter, vote.signature)
    }

    fn vote_of<S: Statement>(&mut self, vote: Vote<S>, epoch: Epoch, from: ReplicaId) -> Result<Vote<S>, Invalid> {
        self.epoch(epoch)?;
        if vote.voter != from {
            return Err(Invalid::Sender(vote.voter));
        }
        self.vote(&vote)?;
        Ok(vote)
    }

    fn certificate<S: Statement + Copy + PartialEq>(&mut self, certificate: &Certificate<S>) -> Result<(), Invalid> {
        if !certificate.has_quorum_form(self.configuration.quorum(), self.configuration.size()) {
            return Err(Invalid::Certificate);
        }
        let cluster = *self.configuration.cluster();
        let digest = certificate.statement.signed_digest(&cluster);
        certificate.votes.iter().try_for_each(|vote| self.signature_of_digest(digest, vote.voter, vote.signature))
    }

    /// A certificate of this epoch; that which ended the epoch before counts as one. (PROTOCOL §7.1)
    fn stable(&mut self, certificate: &StableCertificate) -> Result<(), Invalid> {
        let Checkpoint { epoch, sequence, .. } = certificate.statement;
        let is_first = epoch.next() == Some(self.configuration.epoch()) && sequence == self.configuration.began();
        if !is_first {
            self.epoch(epoch)?;
        }
        self.checkpoint(certificate)
    }

    fn checkpoint(&mut self, certificate: &StableCertificate) -> Result<(), Invalid> {
        if !self.configuration.is_checkpoint(certificate.statement.sequence) {
            return Err(Invalid::Form("a checkpoint at a slot that is none"));
        }
        self.certificate(certificate)
    }

    fn request(&mut self, signed: SignedRequest) -> Result<ParsedRequest, Invalid> {
        let request = ParsedRequest::parse(signed, self.configuration)?;
        self.items.push(request.signature_item(self.configuration.cluster()));
        Ok(request)
    }

    fn client_signatures(&mut self, batch: &Batch) {
        let cluster = self.configuration.cluster();
        self.items.extend(batch.requests().iter().map(|request| request.signature_item(cluster)));
    }

    fn decided(&mut self, decided: Decided) -> Result<Payload, Invalid> {
        let Decided { certificate, batch } = decided;
        self.epoch(certificate.statement.epoch)?;
        self.certificate(&certificate)?;
        let batch = Batch::parse(batch.into_bytes(), self.configuration)?;
        if batch.digest() != certificate.statement.digest {
            return Err(Invalid::Digest);
        }
        // The certificate names the batch, and a correct member among its voters checked the clients' signatures.
        Ok(Payload::Decided(certificate, batch))
    }

    /// All of one epoch and one member. Only the signatures are checked of a view change or new view: who signed it knows
    /// what it says.
    fn statements(&mut self, said: Statements) -> Result<Spoken, Invalid> {
        let Statements { token, epoch, prepares, commits, checkpoints, view_change, new_view, reached } = said;
        let mut spoken = Spoken {
            token,
            epoch,
            by: None,
            prepares: prepares.into_vec(),
            commits: commits.into_vec(),
            checkpoints: checkpoints.into_vec(),
            view_change: None,
            new_view: None,
            reached,
            signed: (view_change, new_view),
        };
        let mut signers = Vec::new();
        let epochs = (spoken.prepares.iter().map(|vote| vote.statement.epoch))
            .chain(spoken.commits.iter().map(|vote| vote.statement.epoch))
            .chain(spoken.checkpoints.iter().map(|vote| vote.statement.epoch));
        let mut is_of_epoch = epochs.into_iter().all(|of| of == epoch);
        for vote in &spoken.prepares {
            signers.push(vote.voter);
            self.vote(vote)?;
        }
        for vote in &spoken.commits {
            signers.push(vote.voter);
            self.vote(vote)?;
        }
        for vote in &spoken.checkpoints {
            signers.push(vote.voter);
            self.vote(vote)?;
        }
        let (view_change, new_view) = &spoken.signed;
        if let Some(signed) = view_change {
            let Some((replica, of, view)) = signed.claimed() else { return Err(MALFORMED_HEAD) };
            is_of_epoch &= of == epoch;
            let digest = view_change_digest(self.configuration.cluster(), &signed.body);
            self.signature_of_digest(digest, replica, signed.signature)?;
            signers.push(replica);
            spoken.view_change = Some((view, digest));
        }
        if let Some(signed) = new_view {
            let Some((of, view)) = signed.claimed() else { return Err(MALFORMED_HEAD) };
            is_of_epoch &= of == epoch;
            let digest = new_view_digest(self.configuration.cluster(), &signed.body);
            let primary = self.configuration.primary_in(epoch, view);
            self.signature_of_digest(digest, primary, signed.signature)?;
            signers.push(primary);
            spoken.new_view = Some((view, digest));
        }
        spoken.by = signers.first().copied();
        if !is_of_epoch || signers.iter().any(|signer| Some(*signer) != spoken.by) {
            return Err(Invalid::Form("statements of several epochs or members"));
        }
        Ok(spoken)
    }

    fn view_change(&mut self, signed: SignedViewChange) -> Result<CheckedViewChange, Invalid> {
        let content: ViewChange = decode(signed.body.bytes())?;
        self.epoch(content.epoch)?;
        let digest = view_change_digest(self.configuration.cluster(), &signed.body);
        self.signature_of_digest(digest, content.replica, signed.signature)?;
        if content.view == View::ZERO {
            return Err(Invalid::Form("nobody asks for view 0"));
        }
        if let Some(certificate) = &content.stable {
            self.stable(certificate)?;
        }
        self.prepared(&content)?;
        self.cast(&content)?;
        Ok(CheckedViewChange { content, signed, digest })
    }

    /// Every certificate is of this epoch, a view below the new one, and a slot within the window. (PROTOCOL §7.1)
    fn prepared(&mut self, view_change: &ViewChange) -> Result<(), Invalid> {
        let certificates: &[PreparedCertificate] = &view_change.prepared;
        if !certificates.is_sorted_by(|left, right| left.statement.sequence < right.statement.sequence) {
            return Err(Invalid::Form("certificates out of order"));
        }
        for certificate in certificates {
            let Prepare { epoch, view, sequence, .. } = certificate.statement;
            self.epoch(epoch)?;
            if view >= view_change.view || !self.is_within_window(view_change, sequence) {
                return Err(Invalid::Form("a certificate outside the window or of a view not below the new one"));
            }
            self.certificate(certificate)?;
        }
        Ok(())
    }

    fn cast(&self, view_change: &ViewChange) -> Result<(), Invalid> {
        if !view_change.cast.is_sorted_by(|left, right| left.sequence < right.sequence) {
            return Err(Invalid::Form("votes out of order"));
        }
        let is_valid = |vote: &crate::message::Cast| {
            vote.view < view_change.view && self.is_within_window(view_change, vote.sequence)
        };
        if view_change.cast.iter().all(is_valid) {
            Ok(())
        } else {
            Err(Invalid::Form("a vote outside the window or of a view not below the new one"))
        }
    }

    fn is_within_window(&self, view_change: &ViewChange, sequence: Sequence) -> bool {
        let low = view_change.stable_sequence();
        sequence > low && sequence <= low.saturating_add(self.configuration.parameters().window)
    }

    fn new_view(&mut self, signed: SignedNewView) -> Result<CheckedNewView, Invalid> {
        let content: NewView = decode(signed.body.bytes())?;
        self.epoch(content.epoch)?;
        let digest = new_view_digest(self.configuration.cluster(), &signed.body);
        self.signature_of_digest(digest, self.configuration.primary(content.view), signed.signature)?;
        if content.view == View::ZERO {
            return Err(Invalid::Form("view 0 begins without a new view"));
        }
        let named = &content.view_changes;
        if named.len() != self.configuration.quorum() || !named.is_sorted_by(|left, right| left.replica < right.replica)
        {
            return Err(Invalid::Form("a new view does not rest on exactly a quorum in order"));
        }
        if named.iter().any(|view_change| self.configuration.member(view_change.replica).is_none()) {
            return Err(Invalid::Form("a new view rests on somebody who is no member"));
        }
        Ok(CheckedNewView { content, signed, digest })
    }
}
