//! The port of members: strangers who are no members, and a replica's key in the hands of somebody who sends rubbish with
//! it. Both are refused, and the others go on. (PROTOCOL §1, §3, §4)

use std::time::{Duration, Instant};

use quorate_node::configuration::key_file;
use quorate_node::transport::{ALPN_PEER, Lane, Violation};
use quorate_protocol::batch::Batch;
use quorate_protocol::codec::{Blob, Encode, List, encode};
use quorate_protocol::message::{Message, PrePrepare, SignedViewChange, Status, ViewChange, to_frame};
use quorate_protocol::number::{Epoch, ReplicaId, Sequence, View};
use quorate_protocol::statement::{Prepare, Vote};
use quorate_tests::{Cluster, Impostor, LIMIT, Load, Stranger, say, wait_until};

/// Longest silence that a client may notice.
const GAP_MAX: Duration = Duration::from_secs(2);

/// The version of the transport, and its lane of votes, as a hello names them.
const VERSION: u16 = 1;
const VOTES: u8 = 0;

/// Messages of a flood, to each of the others.
const FLOOD: u64 = 3_000;

/// An impostor, and the cluster that it pretends to be a member of.
struct Rubbish<'a> {
    impostor: &'a Impostor,
    cluster: &'a Cluster,
}

impl Rubbish<'_> {
    /// Frames that count for nothing, each with the words by which the others say why.
    fn kinds(&self) -> [(Vec<u8>, Lane, &'static str); 6] {
        let status = frame(&status());
        let own_view = self.impostor.id().index() as u64;
        [
            (vec![0xff; 1_000], Lane::Votes, "a message of another version"),
            ([&status[..1], &[0xfe; 8]].concat(), Lane::Votes, "malformed: unknown variant"),
            ([&status[..], b"and more"].concat(), Lane::Votes, "8 bytes left over"),
            (self.proposal(own_view), Lane::Votes, "it came by the lane of others"),
            (self.proposal(own_view), Lane::Bulk, "an invalid signature"),
            (self.proposal(own_view + 1), Lane::Bulk, "which did not send it"),
        ]
    }

    /// A vote for the empty batch, under a signature over something else.
    fn vote(&self, view: u64, sequence: u64) -> Vote<Prepare> {
        let (view, sequence, digest) = (View::new(view), Sequence::new(sequence), Batch::empty().digest());
        let signature = self.impostor.key().sign(self.cluster.genesis().cluster().digest());
        let voter = self.impostor.id();
        Vote { statement: Prepare { epoch: Epoch::ZERO, view, sequence, digest }, voter, signature }
    }

    fn proposal(&self, view: u64) -> Vec<u8> {
        frame(&Message::PrePrepare(PrePrepare { vote: self.vote(view, 1), batch: Blob::EMPTY }))
    }

    /// A view change in the name of replica 0.
    fn view_change(&self, view: u64) -> Vec<u8> {
        let (stable, prepared, cast) = (None, List::empty(), List::empty());
        let (view, replica) = (View::new(view), ReplicaId::new(0));
        let content = ViewChange { epoch: Epoch::ZERO, view, replica, stable, prepared, cast };
        let signature = self.impostor.key().sign(self.cluster.genesis().cluster().digest());
        let body = encode(&content).unwrap().into();
        frame(&Message::ViewChange(SignedViewChange { body, signature }))
    }
}

fn status() -> Message {
    Message::Status(Status {
        epoch: Epoch::ZERO,
        view: View::ZERO,
        entered: true,
        suspects: false,
        stable: Sequence::ZERO,
        executed: Sequence::ZERO,
        decided_from: Sequence::new(1),
        view_changes: 0,
        checkpoint_votes: 0,
        slots: List::empty(),
    })
}

fn frame(message: &impl Encode) -> Vec<u8> {
    to_frame(message).unwrap().to_vec()
}

#[test]
fn one_of_four_that_sends_rubbish_stops_nobody() {
    members_that_send_rubbish_stop_nobody(4, 1);
}

#[test]
fn two_of_seven_that_send_rubbish_stop_nobody() {
    members_that_send_rubbish_stop_nobody(7, 2);
}

/// The last replicas' keys are abused, of as many as may be faulty; then they come back as they were.
fn members_that_send_rubbish_stop_nobody(replicas: u8, abused: u8) {
    let mut cluster = Cluster::start(replicas);
    let load = Load::start(&cluster, 2);
    load.wait_for(20);
    let correct = replicas - abused;
    (correct..replicas).for_each(|id| cluster.stop(id));
    let impostors: Vec<Impostor> = (correct..replicas).map(|id| Impostor::start(&cluster, id)).collect();
    impostors.iter().for_each(Impostor::wait_linked);
    let start = Instant::now();
    let rubbish = impostors.iter().map(|impostor| Rubbish { impostor, cluster: &cluster });
    rubbish.clone().take(1).for_each(|rubbish| says_each_kind(&rubbish, correct));
    rubbish.for_each(|rubbish| floods(&rubbish, correct));
    load.wait_for(50);
    let gap = load.longest_gap_since(start);
    say(&format!("{abused} of {replicas} sent rubbish: {} ms of silence at most", gap.as_millis()));
    assert!(gap < GAP_MAX, "{gap:?}");
    let view = cluster.status().view();
    assert_eq!(view, 0, "view changes in others' names count for nothing");
    impostors.into_iter().for_each(Impostor::leave);
    (correct..replicas).for_each(|id| cluster.restart(id));
    cluster.assert_nothing_lost(load);
}

/// What is invalid is logged when its count is a power of two: each kind is sent as often as all before it together.
fn says_each_kind(rubbish: &Rubbish<'_>, correct: u8) {
    let from = format!("from={}", rubbish.impostor.id());
    for (number, (frame, lane, words)) in rubbish.kinds().into_iter().enumerate() {
        for to in 0..correct {
            // One, one, two, four, …: thirty-two in all, half as many as are borne with.
            let copies = 1 << number.saturating_sub(1);
            (0..copies).for_each(|_| assert!(rubbish.impostor.send(to, lane, &frame), "to replica {to}"));
            wait_until(&format!("replica {to} to say: {words}"), LIMIT, || {
                let log = rubbish.cluster.log_of(to);
                log.lines().any(|line| line.contains(&from) && line.contains(words))
            });
        }
    }
}

/// Noise, forged votes on slots under way, and forged view changes, as fast as they go out: until it is disconnected.
fn floods(rubbish: &Rubbish<'_>, correct: u8) {
    let executed = rubbish.cluster.status().executed();
    for number in 0..FLOOD {
        let (lane, frame) = match number % 3 {
            0 => (Lane::Votes, vec![0xff; 100]),
            1 => (Lane::Votes, frame(&Message::Prepare(rubbish.vote(0, executed + number % 64)))),
            _ => (Lane::Bulk, rubbish.view_change(1 + number)),
        };
        for to in 0..correct {
            rubbish.impostor.send(to, lane, &frame);
        }
    }
    for to in 0..correct {
        let from = format!("from={}", rubbish.impostor.id());
        let is_barred = |line: &str| line.contains(&from) && line.contains("it is disconnected");
        let said = || rubbish.cluster.log_of(to).lines().any(is_barred);
        wait_until(&format!("replica {to} to have refused the flood"), LIMIT, said);
    }
}

/// What a replica logs of members that come, go, or say what is not valid.
fn noted_of_members(cluster: &Cluster, id: u8) -> Vec<String> {
    let log = cluster.log_of(id);
    let noted = log.lines().filter(|line| line.contains("link ") || line.contains("invalid message"));
    noted.map(str::to_owned).collect()
}

#[test]
fn a_stranger_at_the_port_of_one_of_four_members_is_refused_before_anything_of_his_is_read() {
    a_stranger_is_refused_before_anything_of_his_is_read(4);
}

#[test]
fn a_stranger_at_the_port_of_one_of_seven_members_is_refused_before_anything_of_his_is_read() {
    a_stranger_is_refused_before_anything_of_his_is_read(7);
}

/// His side of the handshake ends first, so that he can write before he hears of the refusal. Bytes of which the first
/// would be answered by the transport if it were read, and the second by the replica's log, are not.
fn a_stranger_is_refused_before_anything_of_his_is_read(replicas: u8) {
    let cluster = Cluster::start(replicas);
    let load = Load::start(&cluster, 2);
    load.wait_for(20);
    let others = usize::from(replicas) - 1;
    wait_until("every other member to be linked", LIMIT, || noted_of_members(&cluster, 1).len() >= others);
    let noted = noted_of_members(&cluster, 1);
    let mut written = 0;
    for round in 0..20 {
        let refused = match Stranger::dial(cluster.peer_address(1), ALPN_PEER, &key_file::generate().unwrap()) {
            Ok(mut stranger) if round % 2 == 0 => {
                written += u32::from(stranger.send_frame(b"GET / HTTP/1.1"));
                stranger.farewell()
            }
            Ok(mut stranger) => {
                let is_written = stranger.send_hello(VERSION, &cluster.id_bytes(), VOTES);
                written += u32::from(is_written && stranger.send_frame(&[0xff; 1_000]));
                stranger.farewell()
            }
            Err(farewell) => farewell,
        };
        assert_eq!(refused.code, None, "TLS refuses before any stream is read: {refused:?}");
        assert!(refused.text.contains("this key is not the one that is expected here"), "{refused:?}");
    }
    say(&format!("{written} of 20 strangers wrote before they were refused"));
    assert!(written > 0);
    assert_eq!(noted_of_members(&cluster, 1), noted);
    cluster.assert_nothing_lost(load);
}

#[test]
fn a_member_that_breaks_the_framing_is_told_so_and_disconnected() {
    let mut cluster = Cluster::start(4);
    let load = Load::start(&cluster, 2);
    load.wait_for(20);
    // Of two members the one with the lower number dials.
    let key = cluster.key_of(0);
    cluster.stop(0);
    let start = Instant::now();
    let address = cluster.peer_address(1);
    // Each is let in later than the one before.
    for _ in 0..6 {
        let mut member = Stranger::dial(address, ALPN_PEER, &key).unwrap();
        member.send_frame(b"no hello of this protocol");
        let farewell = member.farewell();
        assert_eq!(farewell.code, Some(Violation::NoHello.code().into()), "{farewell:?}");
    }
    load.wait_for(50);
    let gap = load.longest_gap_since(start);
    assert!(gap < GAP_MAX, "{gap:?}");
    cluster.restart(0);
    cluster.assert_nothing_lost(load);
}
