//! Certificates that are looked at outside a replica: by a client that reads with proof, and by who inspects a folder.

use getrandom::SysRng;
use getrandom::rand_core::UnwrapErr;
use quorate_crypto::{Digest, Item, KnownKeys, verify_batch};
use quorate_protocol::certificate::{Certificate, StableCertificate, VoteSignature};
use quorate_protocol::configuration::Configuration;
use quorate_protocol::statement::Statement;

/// Whether a quorum of the configuration vouches for it, of whatever epoch: the members are the same. (PROTOCOL §5)
pub(crate) fn is_stable(configuration: &Configuration, certificate: &StableCertificate) -> bool {
    configuration.is_checkpoint(certificate.statement.sequence) && is_signed(configuration, certificate)
}

/// Whether a quorum of the configuration signed it: each of them once, and with valid signatures. (PROTOCOL §3)
pub(crate) fn is_signed<S: Statement + Copy + PartialEq>(
    configuration: &Configuration,
    certificate: &Certificate<S>,
) -> bool {
    if !certificate.has_quorum_form(configuration.quorum(), configuration.size()) {
        return false;
    }
    let digest: Digest = certificate.statement.signed_digest(configuration.cluster());
    let item = |vote: &VoteSignature| {
        let member = configuration.member(vote.voter)?;
        Some(Item { key: member.key, digest, signature: vote.signature })
    };
    let items: Option<Vec<Item>> = certificate.votes.iter().map(item).collect();
    items.is_some_and(|items| verify_batch(&items, &mut KnownKeys::default(), UnwrapErr(SysRng)).is_ok())
}
