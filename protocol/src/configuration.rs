//! Who takes part, and the parameters that all must agree on. (PROTOCOL §1, §11, §14)
//!
//! Quorum sizes are computed here and nowhere else. Every relation between parameters is checked when a configuration is
//! built, so that nobody has to check it again.

use alloc::string::String;
use core::time::Duration;

use quorate_crypto::{Digest, Domain, PublicKey, hash};

use crate::batch::OPERATIONS_MAX;
use crate::codec::{BorrowDecode, Decode, ENCODED_BYTES_MAX, Encode, Frame, List, encode};
use crate::number::{Epoch, ReplicaId, Sequence, View};
use crate::sessions::OUTSTANDING_MAX;
use crate::time::WallTime;

/// Most slots between the watermarks. Bounds view changes and everything that is kept per slot.
pub const WINDOW_MAX: usize = 1024;

/// Most client keys that a configuration lists.
pub const LISTED_CLIENTS_MAX: usize = 4096;

/// Longest address, in bytes.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// Fewest members: one Byzantine fault is tolerated from four on.
pub const MEMBERS_MIN: usize = 4;

/// The digest of the genesis: part of everything that is signed, so that no signature counts in another cluster.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub struct ClusterId(Digest);

impl ClusterId {
    /// The cluster whose genesis has this digest.
    pub const fn new(digest: Digest) -> Self {
        Self(digest)
    }

    /// The digest of the genesis.
    pub const fn digest(&self) -> &Digest {
        &self.0
    }
}

/// A voter: its key and where it listens.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Member {
    /// What its statements and its channels are verified with.
    pub key: PublicKey,
    /// `host:port` for the other replicas, at most [`ADDRESS_BYTES_MAX`] bytes.
    pub peer_address: String,
    /// `host:port` for clients, at most [`ADDRESS_BYTES_MAX`] bytes.
    pub client_address: String,
}

/// Whose requests are ordered. (PROTOCOL §12)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub enum ClientPolicy {
    /// Those of any key.
    Any,
    /// Those of the listed keys, in ascending order.
    Listed(List<PublicKey, LISTED_CLIENTS_MAX>),
}

impl ClientPolicy {
    /// Whether requests of this key are ordered.
    pub fn takes(&self, client: &PublicKey) -> bool {
        match self {
            Self::Any => true,
            Self::Listed(keys) => keys.binary_search(client).is_ok(),
        }
    }
}

/// What all replicas must agree on besides the members. (PROTOCOL §14)
#[derive(Debug, Clone, PartialEq, Eq, Hash, Encode, BorrowDecode)]
#[bincode(decode_context = "Frame")]
pub struct Parameters {
    /// Slots from one checkpoint to the next (K), at least 1.
    pub checkpoint_interval: u64,
    /// Slots between the watermarks, at least 2K and at most [`WINDOW_MAX`].
    pub window: u64,
    /// Slots that a primary has in flight, at least 1 and at most the window.
    pub pipeline: u64,
    /// Largest encoded batch, in bytes; holds at least one request of the largest size.
    pub batch_bytes_max: u32,
    /// Most operations in a batch, at most [`crate::batch::OPERATIONS_MAX`].
    pub batch_operations_max: u32,
    /// Largest encoded request, in bytes.
    pub request_bytes_max: u32,
    /// Requests that a session may have outstanding: its window of numbers, 1 to 64.
    pub outstanding_max: u32,
    /// Sessions that are kept; the one that executed least recently gives way.
    pub sessions_max: u32,
    /// Bytes of cached replies that are kept over all sessions; sessions give way as above.
    pub reply_cache_bytes_max: u64,
    /// Milliseconds from one status to the next.
    pub heartbeat_ms: u32,
    /// Milliseconds without a status after which a replica counts as crashed; at least two heartbeats.
    pub crash_suspicion_ms: u32,
    /// Milliseconds that an expected request may take before its primary is suspected.
    pub ordering_deadline_ms: u32,
    /// Milliseconds to which any doubled deadline is capped; at least the ordering deadline.
    pub deadline_cap_ms: u32,
    /// Milliseconds by which a batch's stamp may differ from a backup's clock.
    pub clock_bound_ms: u32,
    /// Milliseconds after which a client sends its request to all, at first.
    pub client_timeout_ms: u32,
    /// Milliseconds from one `Rejoin` of a member to its next that counts; at least the cap of the deadlines.
    pub rejoin_interval_ms: u32,
    /// Milliseconds for which the turns of a primary that was given up are passed over, at most an hour. 0: they never are.
    pub passed_over_ms: u32,
    /// Whether reads may be answered without being ordered: clients then wait for a quorum of equal replies to whatever is
    /// ordered, instead of a weak one. (PROTOCOL §8)
    pub fast_reads: bool,
    /// Whose requests are ordered.
    pub clients: ClientPolicy,
}

impl Default for Parameters {
    fn default() -> Self {
        Self {
            checkpoint_interval: 128,
            window: 512,
            pipeline: 8,
            batch_bytes_max: 512 << 10,
            batch_operations_max: 4096,
            request_bytes_max: 256 << 10,
            outstanding_max: 64,
            sessions_max: 65_536,
            reply_cache_bytes_max: 256 << 20,
            heartbeat_ms: 100,
            crash_suspicion_ms: 300,
            ordering_deadline_ms: 500,
            deadline_cap_ms: 8_000,
            clock_bound_ms: 2_000,
            client_timeout_ms: 250,
            rejoin_interval_ms: 60_000,
            passed_over_ms: 600_000,
            fast_reads: false,
            clients: ClientPolicy::Any,
        }
    }
}

/// Why members and parameters are not a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// Too few or too many members.
    #[error("{0} members: at least {MEMBERS_MIN} and at most {max} are supported", max = ReplicaId::COUNT_MAX)]
    Members(usize),
    /// Two members have the same key.
    #[error("members {0} and {1} have the same key")]
    SameKey(ReplicaId, ReplicaId),
    /// A member's key is no point of the curve.
    #[error("the key of member {0} is not a point of the curve")]
    Key(ReplicaId),
    /// A member's address is empty or too long.
    #[error("an address of member {0} is empty or longer than {ADDRESS_BYTES_MAX} bytes")]
    Address(ReplicaId),
    /// A parameter is out of its range or contradicts another.
    #[error("parameter `{name}`: {relation}")]
    Parameter {
        /// The parameter's name as in the genesis file.
        name: &'static str,
        /// What must hold.
        relation: &'static str,
    },
}

/// The state with which a cluster begins, where it is not the empty one: what its genesis says of slot 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct InitialState {
    /// The root of the application's state.
    pub application: Digest,
    /// The time from which that of its operations goes on.
    pub time: WallTime,
}

/// The members and parameters of one epoch, checked.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Configuration {
    cluster: ClusterId,
    epoch: Epoch,
    /// The checkpoint that ended the epoch before; zero in the first.
    began: Sequence,
    members: List<Member, { ReplicaId::COUNT_MAX }>,
    parameters: Parameters,
    /// None: the cluster begins with nothing.
    initial: Option<InitialState>,
}

impl Configuration {
    /// The configuration of the first epoch of `cluster`.
    ///
    /// # Errors
    /// [`ConfigurationError`] names the first relation that does not hold.
    pub fn new(
        cluster: ClusterId,
        members: List<Member, { ReplicaId::COUNT_MAX }>,
        parameters: Parameters,
    ) -> Result<Self, ConfigurationError> {
        check_members(&members)?;
        check_parameters(&parameters)?;
        check_new_view(members.len(), &parameters)?;
        Ok(Self { cluster, epoch: Epoch::ZERO, began: Sequence::ZERO, members, parameters, initial: None })
    }

    /// The same for a cluster that begins with a state. The genesis names it, so that the cluster's identity covers it.
    /// (PROTOCOL §11)
    #[must_use]
    pub fn with_initial_state(self, initial: Option<InitialState>) -> Self {
        Self { initial, ..self }
    }

    /// The state at slot 0, if it is not the empty one.
    pub const fn initial_state(&self) -> Option<&InitialState> {
        self.initial.as_ref()
    }

    /// The same members in `epoch`, which began at the checkpoint `began`.
    #[must_use]
    pub fn in_epoch(&self, epoch: Epoch, began: Sequence) -> Self {
        Self { epoch, began, ..self.clone() }
    }

    /// The cluster that this configuration belongs to.
    pub const fn cluster(&self) -> &ClusterId {
        &self.cluster
    }

    /// The number of this configuration.
    pub const fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// The checkpoint that ended the epoch before: its certificate is the first of this one. Zero in the first epoch.
    pub const fn began(&self) -> Sequence {
        self.began
    }

    /// The members, by index.
    pub fn members(&self) -> &[Member] {
        &self.members
    }

    /// The member `id`, if there is one.
    pub fn member(&self, id: ReplicaId) -> Option<&Member> {
        self.members.get(id.index())
    }

    /// What all agree on besides the members.
    pub const fn parameters(&self) -> &Parameters {
        &self.parameters
    }

    /// The number of members, n.
    pub fn size(&self) -> usize {
        self.members.len()
    }

    /// How many members may be Byzantine: f = (n - 1) / 3. (PROTOCOL §1)
    pub fn faults_max(&self) -> usize {
        faults_max(self.size())
    }

    /// q = (n + f) / 2 + 1: two quorums share a correct member. (PROTOCOL §1)
    pub fn quorum(&self) -> usize {
        quorum(self.size())
    }

    /// w = f + 1: holds at least one correct member. (PROTOCOL §1)
    pub fn weak_quorum(&self) -> usize {
        self.faults_max() + 1
    }

    /// The member with this key, if there is one.
    pub fn member_with_key(&self, key: &PublicKey) -> Option<ReplicaId> {
        self.replicas().zip(self.members()).find(|(_, member)| member.key == *key).map(|(id, _)| id)
    }

    /// All members' numbers.
    pub fn replicas(&self) -> impl DoubleEndedIterator<Item = ReplicaId> + Clone + use<> {
        ReplicaId::all(self.size())
    }

    /// The primary of `view` in this epoch. (PROTOCOL §1)
    pub fn primary(&self, view: View) -> ReplicaId {
        self.primary_in(self.epoch, view)
    }

    /// The primary of `view` in another epoch of the same members.
    pub fn primary_in(&self, epoch: Epoch, view: View) -> ReplicaId {
        let size = self.size() as u64;
        let index = (epoch.value() % size + view.value() % size) % size;
        ReplicaId::new(u8::try_from(index).expect("an index is below the number of members, which is at most 31"))
    }

    /// Whether a checkpoint is taken after slot `sequence`.
    pub fn is_checkpoint(&self, sequence: Sequence) -> bool {
        sequence.is_checkpoint(self.parameters.checkpoint_interval)
    }

    /// The digest of members and parameters: part of the state root.
    pub fn digest(&self) -> Digest {
        let members = encode(&self.members).expect("31 members with bounded addresses are far below the limit");
        let parameters = encode(&self.parameters).expect("parameters with bounded lists are far below the limit");
        hash(Domain::Configuration, &[self.cluster.digest().as_bytes(), &members, &parameters])
    }
}

impl Parameters {
    /// From one status to the next.
    pub fn heartbeat(&self) -> Duration {
        Duration::from_millis(self.heartbeat_ms.into())
    }

    /// Without a status for this long, a replica counts as crashed.
    pub fn crash_suspicion(&self) -> Duration {
        Duration::from_millis(self.crash_suspicion_ms.into())
    }

    /// How long an expected request may take, at first.
    pub fn ordering_deadline(&self) -> Duration {
        Duration::from_millis(self.ordering_deadline_ms.into())
    }

    /// To what any doubled deadline is capped.
    pub fn deadline_cap(&self) -> Duration {
        Duration::from_millis(self.deadline_cap_ms.into())
    }

    /// By how much a batch's stamp may differ from a backup's clock.
    pub fn clock_bound(&self) -> Duration {
        Duration::from_millis(self.clock_bound_ms.into())
    }

    /// From one `Rejoin` of a member to its next that counts.
    pub fn rejoin_interval(&self) -> Duration {
        Duration::from_millis(self.rejoin_interval_ms.into())
    }

    /// For how long the turns of a primary that was given up are passed over.
    pub fn passed_over(&self) -> Duration {
        Duration::from_millis(self.passed_over_ms.into())
    }

    /// After this long a client sends its request to all, at first.
    pub fn client_timeout(&self) -> Duration {
        Duration::from_millis(self.client_timeout_ms.into())
    }
}

/// f for `size` members: the most that may be Byzantine. (PROTOCOL §1)
const fn faults_max(size: usize) -> usize {
    size.saturating_sub(1) / 3
}

/// q for `size` members. (PROTOCOL §1)
const fn quorum(size: usize) -> usize {
    size.midpoint(faults_max(size)) + 1
}

fn check_members(members: &[Member]) -> Result<(), ConfigurationError> {
    if members.len() < MEMBERS_MIN || members.len() > ReplicaId::COUNT_MAX {
        return Err(ConfigurationError::Members(members.len()));
    }
    for (id, member) in ReplicaId::all(members.len()).zip(members) {
        if !member.key.is_on_curve() {
            return Err(ConfigurationError::Key(id));
        }
        let addresses = [&member.peer_address, &member.client_address];
        if addresses.iter().any(|address| address.is_empty() || address.len() > ADDRESS_BYTES_MAX) {
            return Err(ConfigurationError::Address(id));
        }
        let earlier = ReplicaId::all(id.index()).zip(members).find(|(_, other)| other.key == member.key);
        if let Some((other, _)) = earlier {
            return Err(ConfigurationError::SameKey(other, id));
        }
    }
    Ok(())
}

fn check_parameters(parameters: &Parameters) -> Result<(), ConfigurationError> {
    let p = parameters;
    let window_max = WINDOW_MAX as u64;
    let listed_in_order = match &p.clients {
        ClientPolicy::Any => true,
        ClientPolicy::Listed(keys) => {
            keys.is_sorted_by(|left, right| left < right) && keys.iter().all(PublicKey::is_on_curve)
        }
    };
    let relations = [
        ("checkpoint_interval", "at least 1 and at most half the window", {
            p.checkpoint_interval >= 1 && p.checkpoint_interval <= p.window / 2
        }),
        ("window", "at most 1024 slots", p.window <= window_max),
        ("pipeline", "at least 1 and at most the window", p.pipeline >= 1 && p.pipeline <= p.window),
        ("request_bytes_max", "at least 1 KiB and at most 1 MiB", (1 << 10..=1 << 20).contains(&p.request_bytes_max)),
        ("batch_bytes_max", "at most 4 MiB, and larger than the largest request by 1 KiB", {
            p.batch_bytes_max <= 4 << 20 && p.batch_bytes_max >= p.request_bytes_max.saturating_add(1 << 10)
        }),
        (
            "batch_operations_max",
            "at least 1 and at most 4096",
            (1..=OPERATIONS_MAX).contains(&(p.batch_operations_max as usize)),
        ),
        ("outstanding_max", "at least 1 and at most 64", (1..=OUTSTANDING_MAX).contains(&(p.outstanding_max as usize))),
        ("sessions_max", "at least 1 and at most 1048576", (1..=1 << 20).contains(&p.sessions_max)),
        ("reply_cache_bytes_max", "at least 4 MiB", p.reply_cache_bytes_max >= 4 << 20),
        ("heartbeat_ms", "at least 10 and at most 10000", (10..=10_000).contains(&p.heartbeat_ms)),
        ("crash_suspicion_ms", "at least two heartbeats", p.crash_suspicion_ms >= p.heartbeat_ms.saturating_mul(2)),
        ("ordering_deadline_ms", "at least 1", p.ordering_deadline_ms >= 1),
        ("deadline_cap_ms", "at least the ordering deadline and at least the crash suspicion, at most 60000", {
            p.deadline_cap_ms >= p.ordering_deadline_ms
                && p.deadline_cap_ms >= p.crash_suspicion_ms
                && p.deadline_cap_ms <= 60_000
        }),
        ("clock_bound_ms", "at least 1", p.clock_bound_ms >= 1),
        ("client_timeout_ms", "at least 10", p.client_timeout_ms >= 10),
        ("rejoin_interval_ms", "at least the cap of the deadlines", p.rejoin_interval_ms >= p.deadline_cap_ms),
        ("passed_over_ms", "at most 3600000", p.passed_over_ms <= 3_600_000),
        ("clients", "listed keys are points of the curve, in ascending order, each once", listed_in_order),
    ];
    match relations.into_iter().find(|(_, _, holds)| !holds) {
        Some((name, relation, _)) => Err(ConfigurationError::Parameter { name, relation }),
        None => Ok(()),
    }
}

/// A new view with its view changes whole is one record: a quorum of them, each with a certificate and a vote for every slot
/// of the window. One that exceeds the encoding's bound could not be made durable, and no view be entered. (PROTOCOL §7.4)
fn check_new_view(members: usize, parameters: &Parameters) -> Result<(), ConfigurationError> {
    /// A vote in a certificate: the voter and its signature.
    const VOTE_BYTES: u64 = 1 + 64;
    /// A certificate without its votes, and the vote cast for the same slot.
    const SLOT_BYTES: u64 = (8 + 8 + 8 + 32 + 4) + (8 + 8 + 32);
    /// The rest of a view change with its stable certificate, more than enough.
    const VIEW_CHANGE_BYTES: u64 = 4 << 10;
    /// The new view itself, more than enough: 40 bytes a slot, 33 a view change.
    const NEW_VIEW_BYTES: u64 = 64 << 10;
    let of_slot = SLOT_BYTES + VOTE_BYTES * members as u64;
    let of_view_change = parameters.window * of_slot + VIEW_CHANGE_BYTES;
    if quorum(members) as u64 * of_view_change + NEW_VIEW_BYTES <= ENCODED_BYTES_MAX as u64 {
        return Ok(());
    }
    let relation = "at most as many slots as the view changes of a quorum of these members list in 24 MiB";
    Err(ConfigurationError::Parameter { name: "window", relation })
}

#[cfg(test)]
mod tests {
    use alloc::vec::Vec;

    use super::*;

    /// Sizes, faults, quorum and weak quorum, written by hand. (PROTOCOL §1)
    const TABLE: [(usize, usize, usize, usize); 10] = [
        (4, 1, 3, 2),
        (5, 1, 4, 2),
        (6, 1, 4, 2),
        (7, 2, 5, 3),
        (8, 2, 6, 3),
        (9, 2, 6, 3),
        (10, 3, 7, 4),
        (13, 4, 9, 5),
        (16, 5, 11, 6),
        (31, 10, 21, 11),
    ];

    #[test]
    fn quorum_sizes_agree_with_the_table() {
        for (size, faults, expected, weak) in TABLE {
            assert_eq!((faults_max(size), quorum(size), faults_max(size) + 1), (faults, expected, weak), "n = {size}");
        }
    }

    #[test]
    fn primaries_take_turns_to_the_end_of_the_range() {
        let members = List::new(members(7)).expect("seven");
        let cluster = ClusterId::new(Digest::ZERO);
        for (epoch, view, primary) in [(0, 0, 0), (0, 8, 1), (3, 5, 1), (u64::MAX, u64::MAX, 2)] {
            let configuration = Configuration::new(cluster, members.clone(), Parameters::default());
            let configuration =
                configuration.expect("the defaults are valid").in_epoch(Epoch::new(epoch), Sequence::ZERO);
            assert_eq!(configuration.primary(View::new(view)), ReplicaId::new(primary), "view {view} of epoch {epoch}");
        }
    }

    #[test]
    fn two_quorums_share_a_correct_member_and_the_correct_ones_are_a_quorum() {
        for size in MEMBERS_MIN..=ReplicaId::COUNT_MAX {
            let (faults, quorum) = (faults_max(size), quorum(size));
            assert!(2 * quorum - size > faults, "n = {size}");
            assert!(size - faults >= quorum, "n = {size}");
        }
    }

    type Change = fn(&mut Parameters);

    /// For each relation: what just satisfies it, and what just breaks it.
    const RELATIONS: [(&str, &[Change], &[Change]); 18] = [
        (
            "checkpoint_interval",
            &[|p| p.checkpoint_interval = 1, |p| (p.checkpoint_interval, p.window) = (100, 200)],
            &[|p| p.checkpoint_interval = 0, |p| (p.checkpoint_interval, p.window) = (100, 199)],
        ),
        ("window", &[|p| p.window = 1024], &[|p| p.window = 1025]),
        (
            "pipeline",
            &[|p| p.pipeline = 1, |p| p.pipeline = p.window],
            &[|p| p.pipeline = 0, |p| p.pipeline = p.window + 1],
        ),
        (
            "request_bytes_max",
            &[|p| p.request_bytes_max = 1024, |p| (p.request_bytes_max, p.batch_bytes_max) = (1 << 20, 4 << 20)],
            &[|p| p.request_bytes_max = 1023, |p| (p.request_bytes_max, p.batch_bytes_max) = ((1 << 20) + 1, 4 << 20)],
        ),
        (
            "batch_bytes_max",
            &[|p| p.batch_bytes_max = 4 << 20, |p| p.batch_bytes_max = p.request_bytes_max + 1024],
            &[|p| p.batch_bytes_max = (4 << 20) + 1, |p| p.batch_bytes_max = p.request_bytes_max + 1023],
        ),
        (
            "batch_operations_max",
            &[|p| p.batch_operations_max = 1, |p| p.batch_operations_max = 4096],
            &[|p| p.batch_operations_max = 0, |p| p.batch_operations_max = 4097],
        ),
        (
            "outstanding_max",
            &[|p| p.outstanding_max = 1, |p| p.outstanding_max = 64],
            &[|p| p.outstanding_max = 0, |p| p.outstanding_max = 65],
        ),
        (
            "sessions_max",
            &[|p| p.sessions_max = 1, |p| p.sessions_max = 1 << 20],
            &[|p| p.sessions_max = 0, |p| p.sessions_max = (1 << 20) + 1],
        ),
        (
            "reply_cache_bytes_max",
            &[|p| p.reply_cache_bytes_max = 4 << 20],
            &[|p| p.reply_cache_bytes_max = (4 << 20) - 1],
        ),
        (
            "heartbeat_ms",
            &[
                |p| p.heartbeat_ms = 10,
                |p| {
                    (p.heartbeat_ms, p.crash_suspicion_ms, p.deadline_cap_ms) = (10_000, 20_000, 20_000);
                },
            ],
            &[
                |p| p.heartbeat_ms = 9,
                |p| {
                    (p.heartbeat_ms, p.crash_suspicion_ms, p.deadline_cap_ms) = (10_001, 20_002, 20_002);
                },
            ],
        ),
        ("crash_suspicion_ms", &[|p| p.crash_suspicion_ms = 200], &[|p| p.crash_suspicion_ms = 199]),
        ("ordering_deadline_ms", &[|p| p.ordering_deadline_ms = 1], &[|p| p.ordering_deadline_ms = 0]),
        (
            "deadline_cap_ms",
            &[
                |p| (p.ordering_deadline_ms, p.deadline_cap_ms) = (700, 700),
                |p| (p.crash_suspicion_ms, p.deadline_cap_ms) = (700, 700),
                |p| p.deadline_cap_ms = 60_000,
            ],
            &[
                |p| (p.ordering_deadline_ms, p.deadline_cap_ms) = (700, 699),
                |p| (p.crash_suspicion_ms, p.deadline_cap_ms) = (700, 699),
                |p| p.deadline_cap_ms = 60_001,
            ],
        ),
        ("clock_bound_ms", &[|p| p.clock_bound_ms = 1], &[|p| p.clock_bound_ms = 0]),
        ("client_timeout_ms", &[|p| p.client_timeout_ms = 10], &[|p| p.client_timeout_ms = 9]),
        (
            "rejoin_interval_ms",
            &[|p| p.rejoin_interval_ms = p.deadline_cap_ms],
            &[|p| {
                p.rejoin_interval_ms = p.deadline_cap_ms - 1;
            }],
        ),
        (
            "passed_over_ms",
            &[|p| p.passed_over_ms = 0, |p| p.passed_over_ms = 3_600_000],
            &[|p| p.passed_over_ms = 3_600_001],
        ),
        (
            "clients",
            &[|p| p.clients = listed(&[]), |p| p.clients = listed(&[key(1), key(2)])],
            &[
                |p| p.clients = listed(&[key(2), key(1)]),
                |p| p.clients = listed(&[key(1), key(1)]),
                |p| p.clients = listed(&[no_point()]),
            ],
        ),
    ];

    /// Keys in ascending order of `index`.
    fn key(index: usize) -> PublicKey {
        let mut keys = [1, 2, 3, 4].map(|seed| quorate_crypto::SigningKey::from_seed([seed; 32]).public_key());
        keys.sort_unstable();
        keys[index]
    }

    fn no_point() -> PublicKey {
        let mut bytes = [0; 32];
        bytes[0] = 2;
        PublicKey::from_bytes(bytes).expect("neither weak nor beyond the prime")
    }

    fn listed(keys: &[PublicKey]) -> ClientPolicy {
        ClientPolicy::Listed(List::new(keys.to_vec()).expect("few"))
    }

    fn with(change: Change) -> Result<(), ConfigurationError> {
        let mut parameters = Parameters::default();
        change(&mut parameters);
        check_parameters(&parameters)
    }

    #[test]
    fn each_relation_holds_up_to_its_bound_and_not_beyond() {
        for (name, satisfying, breaking) in RELATIONS {
            for (index, change) in satisfying.iter().enumerate() {
                assert_eq!(with(*change), Ok(()), "{name}, {index}");
            }
            for (index, change) in breaking.iter().enumerate() {
                let refused = with(*change);
                let is_named = matches!(&refused, Err(ConfigurationError::Parameter { name: of, .. }) if *of == name);
                assert!(is_named, "{name}, {index}: {refused:?}");
            }
        }
    }

    fn members(count: usize) -> Vec<Member> {
        let member = |index: u8| Member {
            key: quorate_crypto::SigningKey::from_seed([index; 32]).public_key(),
            peer_address: String::from("a:1"),
            client_address: String::from("a:2"),
        };
        (0..u8::try_from(count).expect("few")).map(member).collect()
    }

    #[test]
    fn a_configuration_has_four_to_thirty_one_members() {
        for (count, is_valid) in [(0, false), (3, false), (4, true), (31, true), (32, false)] {
            let expected = if is_valid { Ok(()) } else { Err(ConfigurationError::Members(count)) };
            assert_eq!(check_members(&members(count)), expected);
        }
    }

    #[test]
    fn two_members_with_one_key_and_a_key_that_is_no_point_are_refused() {
        let mut same = members(4);
        same[3].key = same[1].key;
        let (one, other) = (ReplicaId::new(1), ReplicaId::new(3));
        assert_eq!(check_members(&same), Err(ConfigurationError::SameKey(one, other)));
        let mut weird = members(4);
        weird[2].key = no_point();
        assert_eq!(check_members(&weird), Err(ConfigurationError::Key(ReplicaId::new(2))));
    }

    #[test]
    fn an_address_is_neither_empty_nor_longer_than_its_bound() {
        for (length, is_valid) in [(0, false), (1, true), (ADDRESS_BYTES_MAX, true), (ADDRESS_BYTES_MAX + 1, false)] {
            let expected = if is_valid { Ok(()) } else { Err(ConfigurationError::Address(ReplicaId::new(2))) };
            let address = "x".repeat(length);
            let mut peers = members(4);
            peers[2].peer_address.clone_from(&address);
            assert_eq!(check_members(&peers), expected, "{length} bytes");
            let mut clients = members(4);
            clients[2].client_address = address;
            assert_eq!(check_members(&clients), expected, "{length} bytes");
        }
    }

    #[test]
    fn a_new_view_must_fit_into_a_record() {
        let largest = Parameters { window: 1024, ..Parameters::default() };
        for (size, parameters) in [(31, &Parameters::default()), (22, &largest)] {
            check_new_view(size, parameters).expect("it fits");
        }
        let refused = check_new_view(23, &largest);
        assert!(matches!(refused, Err(ConfigurationError::Parameter { name: "window", .. })));
    }
}
