//! Requests and the batches that order them. (PROTOCOL §4)
//!
//! A batch is encoded once, by the primary; the same bytes are sent, logged and executed. Its digest covers the requests
//! with their signatures, and is made of the digests of their bodies, which the clients' signatures need too: so each byte
//! is hashed once. A request's identity is client, session and number, never signature bytes.

use alloc::sync::Arc;
use alloc::vec::Vec;

use bytes::Bytes;
use quorate_crypto::{Digest, Domain, Hasher, Item, PublicKey, Signature, hash};

use crate::codec::{Blob, BorrowDecode, CodecError, Encode, Frame, List, decode, decode_head, encode, encode_about};
use crate::configuration::{ClusterId, Configuration};
use crate::membership::Rejoin;
use crate::number::{RequestNumber, Session};
use crate::time::WallTime;

/// Most operations of a request or a batch, and most requests of a batch.
pub const OPERATIONS_MAX: usize = 4096;

/// What a client asks for: operations that execute together and in order, or, without any, a session. (PROTOCOL §4.1)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Request {
    /// The client's key, with which the request is signed.
    pub client: PublicKey,
    /// The session, or [`Session::NONE`] to open one.
    pub session: Session,
    /// The request's number in the session; in an opening, the opening's number.
    pub number: RequestNumber,
    /// The operations; none in an opening.
    pub operations: List<Blob, OPERATIONS_MAX>,
}

/// A request as it was signed: its bytes are kept, nobody encodes it again.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct SignedRequest {
    /// The encoding of a [`Request`].
    pub body: Blob,
    /// The client's signature over the digest of `body`.
    pub signature: Signature,
}

/// A request's identity.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId {
    /// The client's key.
    pub client: PublicKey,
    /// Its session.
    pub session: Session,
    /// The number in it.
    pub number: RequestNumber,
}

/// What a request begins with.
#[derive(BorrowDecode)]
#[bincode(decode_context = "Frame")]
struct Head {
    client: PublicKey,
    session: Session,
    number: RequestNumber,
}

/// A request with the bytes that it was decoded from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ParsedRequest {
    /// What is asked for.
    pub request: Request,
    /// The bytes and their signature.
    pub signed: SignedRequest,
    /// The digest of the bytes.
    body_digest: Digest,
}

/// Why bytes are not a request or a batch of this configuration. Depends on bytes and configuration alone, so all correct
/// replicas agree on it. (PROTOCOL §4.3)
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidBatch {
    /// The bytes are not an encoding.
    #[error(transparent)]
    Codec(#[from] CodecError),
    /// A batch that is not the empty one holds no request, or more bytes or operations than allowed.
    #[error("a batch outside its bounds")]
    Bounds,
    /// A request holds more bytes than allowed.
    #[error("a request of more bytes than allowed")]
    RequestBytes,
    /// An opening with operations, or a request without any.
    #[error("an opening with operations, or a request without any")]
    Opening,
    /// A request with number zero, which no client uses.
    #[error("a request with number zero")]
    Number,
    /// Something else than a member's `Rejoin`, in the place of one.
    #[error("a request in the place of a `Rejoin` that is none of a member")]
    Rejoin,
    /// The policy of the configuration does not list the client.
    #[error("a client that the configuration does not list")]
    Client,
}

#[derive(Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
struct Body {
    stamp: WallTime,
    requests: List<SignedRequest, OPERATIONS_MAX>,
}

/// Bytes in the place of a batch, hashed and not yet checked.
pub(crate) struct Hashed {
    body: Bytes,
    digest: Digest,
    /// Stamp and requests, each with the digest of its body.
    content: Result<(WallTime, Vec<(Digest, SignedRequest)>), CodecError>,
}

/// A batch, with what its bytes mean.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Batch {
    body: Bytes,
    digest: Digest,
    stamp: WallTime,
    requests: Arc<[ParsedRequest]>,
}

impl Request {
    /// The request's identity.
    pub const fn id(&self) -> RequestId {
        RequestId { client: self.client, session: self.session, number: self.number }
    }

    /// Whether it opens a session.
    pub fn is_opening(&self) -> bool {
        self.session == Session::NONE
    }

    /// The request, signed by `signer`, which holds the key of `self.client`.
    ///
    /// # Errors
    /// [`CodecError::TooLong`].
    pub fn sign(
        &self,
        cluster: &ClusterId,
        signer: &dyn crate::statement::Signer,
    ) -> Result<SignedRequest, CodecError> {
        let body = encode(self)?;
        let signature = signer.sign(&request_digest(cluster, &body_digest(&body)));
        Ok(SignedRequest { body: body.into(), signature })
    }
}

impl SignedRequest {
    /// The identity that the bytes claim; nothing else of them is looked at.
    pub fn claimed_id(&self) -> Option<RequestId> {
        let Head { client, session, number } = decode_head(self.body.bytes()).ok()?;
        Some(RequestId { client, session, number })
    }
}

impl ParsedRequest {
    /// A request with bytes that say the same.
    pub fn new(request: Request, signed: SignedRequest) -> Self {
        Self { body_digest: body_digest(&signed.body), request, signed }
    }

    /// Decodes `signed` and checks it against the bounds and the client policy of `configuration`; the signature is left
    /// to [`crate::verify`].
    ///
    /// # Errors
    /// [`InvalidBatch`].
    pub fn parse(signed: SignedRequest, configuration: &Configuration) -> Result<Self, InvalidBatch> {
        let body_digest = body_digest(&signed.body);
        Self::parse_hashed(signed, body_digest, configuration)
    }

    /// The same, of a request whose body was hashed already.
    fn parse_hashed(
        signed: SignedRequest,
        body_digest: Digest,
        configuration: &Configuration,
    ) -> Result<Self, InvalidBatch> {
        let parameters = configuration.parameters();
        if signed.body.len() > parameters.request_bytes_max as usize {
            return Err(InvalidBatch::RequestBytes);
        }
        let request: Request = decode(signed.body.bytes())?;
        if request.is_opening() != request.operations.is_empty() {
            return Err(InvalidBatch::Opening);
        }
        if request.number == RequestNumber::ZERO {
            return Err(InvalidBatch::Number);
        }
        if request.operations.len() > parameters.batch_operations_max as usize {
            return Err(InvalidBatch::Bounds);
        }
        if request.session == Session::REJOIN {
            let is_of_member = configuration.member_with_key(&request.client).is_some();
            let is_rejoin = is_of_member && Rejoin::of(&request).is_some();
            return if is_rejoin { Ok(Self { request, signed, body_digest }) } else { Err(InvalidBatch::Rejoin) };
        }
        if !parameters.clients.takes(&request.client) {
            return Err(InvalidBatch::Client);
        }
        Ok(Self { request, signed, body_digest })
    }

    /// What the client's signature must be valid for.
    pub fn signature_item(&self, cluster: &ClusterId) -> Item {
        Item {
            key: self.request.client,
            digest: request_digest(cluster, &self.body_digest),
            signature: self.signed.signature,
        }
    }

    /// What the request takes up in a batch, in bytes.
    pub fn bytes_in_batch(&self) -> usize {
        self.signed.body.len() + size_of::<u32>() + size_of::<[u8; 64]>()
    }

    /// What counts against the bound of operations: an opening counts as one.
    pub fn operations_in_batch(&self) -> usize {
        self.request.operations.len().max(1)
    }
}

impl Batch {
    /// The empty batch: one constant, without a stamp.
    pub fn empty() -> Self {
        let body = Bytes::new();
        Self { digest: batch_digest(&body), body, stamp: WallTime::ZERO, requests: Arc::from([]) }
    }

    /// The batch of `requests`, at least one, stamped by its primary. The caller keeps to the bounds.
    pub fn new(stamp: WallTime, requests: Vec<ParsedRequest>) -> Self {
        assert!(!requests.is_empty(), "the empty batch is a constant");
        let signed = requests.iter().map(|parsed| parsed.signed.clone()).collect();
        let list = List::new(signed).expect("the primary keeps to the bound of requests");
        let bytes = BATCH_OVERHEAD_BYTES + requests.iter().map(ParsedRequest::bytes_in_batch).sum::<usize>();
        let body =
            encode_about(&Body { stamp, requests: list }, bytes).expect("the primary keeps to the bound of bytes");
        let parts = requests.iter().map(|request| (&request.body_digest, &request.signed.signature));
        Self { digest: digest_of_parts(stamp, parts), requests: within(&body, requests), body, stamp }
    }

    /// Decodes a batch and checks it and its requests against the bounds of `configuration`; the signatures are left to
    /// [`crate::verify`].
    ///
    /// # Errors
    /// [`InvalidBatch`].
    pub fn parse(body: Bytes, configuration: &Configuration) -> Result<Self, InvalidBatch> {
        Hashed::new(body).parse(configuration)
    }

    /// The bytes as the primary encoded them; none in the empty batch.
    pub fn body(&self) -> &Bytes {
        &self.body
    }

    /// The batch's name.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The primary's wall clock when it proposed the batch; zero in the empty batch.
    pub fn stamp(&self) -> WallTime {
        self.stamp
    }

    /// The requests in the order in which they execute.
    pub fn requests(&self) -> &[ParsedRequest] {
        &self.requests
    }

    /// Whether this is the empty batch.
    pub fn is_empty(&self) -> bool {
        self.body.is_empty()
    }
}

impl Hashed {
    pub(crate) fn new(body: Bytes) -> Self {
        let content = decode::<Body>(&body).map(|Body { stamp, requests }| {
            let hashed = |signed: SignedRequest| (body_digest(&signed.body), signed);
            (stamp, requests.into_vec().into_iter().map(hashed).collect::<Vec<_>>())
        });
        let digest = match &content {
            Ok((stamp, requests)) => {
                digest_of_parts(*stamp, requests.iter().map(|(body, signed)| (body, &signed.signature)))
            }
            Err(_not_a_batch) => hash(Domain::Body, &[&body]),
        };
        Self { body, digest, content }
    }

    /// What the bytes are named by, whatever they are.
    pub(crate) const fn digest(&self) -> Digest {
        self.digest
    }

    /// The bytes.
    pub(crate) const fn body(&self) -> &Bytes {
        &self.body
    }

    /// Checks the batch and its requests against the bounds of `configuration`.
    pub(crate) fn parse(self, configuration: &Configuration) -> Result<Batch, InvalidBatch> {
        let Self { body, digest, content } = self;
        if body.is_empty() {
            return Ok(Batch::empty());
        }
        let parameters = configuration.parameters();
        if body.len() > parameters.batch_bytes_max as usize {
            return Err(InvalidBatch::Bounds);
        }
        let (stamp, requests) = content?;
        let requests: Vec<ParsedRequest> = requests
            .into_iter()
            .map(|(body_digest, signed)| ParsedRequest::parse_hashed(signed, body_digest, configuration))
            .collect::<Result<_, _>>()?;
        let operations: usize = requests.iter().map(ParsedRequest::operations_in_batch).sum();
        if requests.is_empty() || operations > parameters.batch_operations_max as usize {
            return Err(InvalidBatch::Bounds);
        }
        Ok(Batch { digest, body, stamp, requests: requests.into() })
    }
}

/// The requests of a body as slices of it, as every other replica has them: the frames in which they came are let go.
fn within(body: &Bytes, came: Vec<ParsedRequest>) -> Arc<[ParsedRequest]> {
    let Ok(Body { requests, .. }) = decode(body) else { return came.into() };
    let slices = requests.into_vec().into_iter().zip(came);
    slices
        .map(|(signed, came)| ParsedRequest {
            request: decode(signed.body.bytes()).unwrap_or(came.request),
            signed,
            body_digest: came.body_digest,
        })
        .collect()
}

/// Bytes that a batch needs beyond its requests.
pub const BATCH_OVERHEAD_BYTES: usize = size_of::<u64>() + size_of::<u32>();

// A batch of one largest request fits: a configuration leaves it 1 KiB beyond the request.
const _: () = assert!(BATCH_OVERHEAD_BYTES + size_of::<u32>() + size_of::<[u8; 64]>() <= 1 << 10);

/// The digest of an encoded batch, or of bytes that are none.
pub fn batch_digest(body: &Bytes) -> Digest {
    Hashed::new(body.clone()).digest
}

/// The digest of a batch by its parts, each of a fixed length: as different as the bytes that encode them.
fn digest_of_parts<'a>(stamp: WallTime, parts: impl Iterator<Item = (&'a Digest, &'a Signature)>) -> Digest {
    let mut hasher = Hasher::new(Domain::Batch);
    hasher.update_u64(stamp.nanoseconds());
    for (body_digest, signature) in parts {
        hasher.update(body_digest.as_bytes()).update(signature.as_bytes());
    }
    hasher.finish()
}

fn body_digest(body: &[u8]) -> Digest {
    hash(Domain::Body, &[body])
}

/// What a client signs for a request whose encoding has this digest.
fn request_digest(cluster: &ClusterId, body_digest: &Digest) -> Digest {
    hash(Domain::Request, &[cluster.digest().as_bytes(), body_digest.as_bytes()])
}

#[cfg(test)]
mod tests {
    use alloc::vec;

    use proptest::collection::vec as vec_of;
    use proptest::prelude::any;
    use proptest::{prop_assert_eq, prop_assert_ne, proptest};

    use super::*;

    fn body(stamp: u64, requests: &[(&[u8], u8)]) -> Bytes {
        let signed = |&(body, signature): &(&[u8], u8)| SignedRequest {
            body: body.to_vec().into(),
            signature: Signature::from_bytes([signature; 64]),
        };
        let requests = List::new(requests.iter().map(signed).collect()).expect("few");
        encode(&Body { stamp: WallTime::from_nanoseconds(stamp), requests }).expect("short")
    }

    proptest! {
        /// Whatever bytes they are, a batch or none: only the same bytes have the same name.
        #[test]
        fn different_bytes_have_different_names(
            stamp in 0..3_u64, bodies in vec_of((vec_of(0..2_u8, 0..3), 0..2_u8), 0..3),
            others in vec_of((vec_of(0..2_u8, 0..3), 0..2_u8), 0..3), noise in vec_of(any::<u8>(), 0..100),
        ) {
            let of = |parts: &[(Vec<u8>, u8)]| {
                body(stamp, &parts.iter().map(|(bytes, signature)| (&bytes[..], *signature)).collect::<Vec<_>>())
            };
            let (left, right) = (of(&bodies), of(&others));
            prop_assert_eq!(left == right, batch_digest(&left) == batch_digest(&right));
            let later = body(stamp + 1, &[]);
            prop_assert_eq!(left == later, batch_digest(&left) == batch_digest(&later));
            prop_assert_ne!(batch_digest(&left), batch_digest(&Bytes::from([&left[..], &[0]].concat())));
            prop_assert_eq!(left == noise, batch_digest(&left) == batch_digest(&noise.into()));
        }
    }

    #[test]
    fn another_signature_under_the_same_request_makes_another_batch() {
        assert_ne!(batch_digest(&body(1, &[(b"a", 1)])), batch_digest(&body(1, &[(b"a", 2)])));
    }

    #[test]
    fn what_is_cut_elsewhere_is_another_batch() {
        let together = batch_digest(&body(1, &[(b"ab", 1)]));
        assert_ne!(together, batch_digest(&body(1, &[(b"a", 1), (b"b", 1)])));
        assert_ne!(batch_digest(&body(1, &[(b"a", 1), (b"b", 1)])), batch_digest(&body(1, &[(b"b", 1), (b"a", 1)])));
    }

    /// The digests of parts cannot be passed off as the bytes of something that is no batch.
    #[test]
    fn bytes_that_are_no_batch_are_named_in_a_domain_of_their_own() {
        let real = body(7, &[(b"a", 1)]);
        let parts = [&7_u64.to_le_bytes()[..], body_digest(b"a").as_bytes(), &[1; 64]].concat();
        assert_eq!(batch_digest(&real), hash(Domain::Batch, &[&parts]));
        assert_ne!(batch_digest(&real), batch_digest(&parts.into()));
        assert_eq!(batch_digest(&Bytes::from(vec![1, 2, 3])), hash(Domain::Body, &[&[1, 2, 3]]));
    }
}
