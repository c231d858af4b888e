//! What a run came to: situations that rules of the protocol are for. A campaign that never reaches one has not tried the
//! rule, however many seeds it plays.

use core::fmt;
use std::collections::BTreeMap;

use quorate_protocol::refusal::Refusal;

/// Makes the list of marks, with their names.
macro_rules! marks {
    ($($mark:ident $name:literal $meaning:literal)*) => {
        /// A situation. Only what correct replicas meet counts.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Mark {
            $(#[doc = $meaning] $mark,)*
            /// A replica refused something, for this reason.
            Refused(Refusal),
        }

        impl Mark {
            /// Those that are no refusals, with names and meanings.
            const NAMED: &[(Self, &'static str, &'static str)] = &[$((Self::$mark, $name, $meaning),)*];
        }
    };
}

marks! {
    ViewEntered "view-entered" "A view above zero was entered."
    ViewHigh "view-high" "View eight or a higher one was entered."
    SuspectedByProof "suspected-by-proof" "A replica suspected the primary on a proof."
    SuspectedByDeadline "suspected-by-deadline" "A replica suspected the primary since a request waited too long."
    SuspectedBySilence "suspected-by-silence" "A replica suspected the primary since it proposed nothing."
    SuspectedBySlowness "suspected-by-slowness" "A replica suspected the primary since it let requests wait for too long."
    SuspectedByCrash "suspected-by-crash" "A replica suspected the primary since it heard nothing of it."
    TurnPassedOver "turn-passed-over" "A replica passed over the view of a primary that it had given up."
    LeftStranded "left-stranded" "A replica left its view for a member that was stranded in a higher one."
    LeftLateNewView "left-late-new-view" "A replica asked for the next view since the new view came too late."
    LeftJoining "left-joining" "A replica left its view since enough others suspected the primary or had left."
    LeftAfterStart "left-after-start" "A replica asked for a view after a start that had lost its view change."
    BackOffAtCap "back-off-at-cap" "A replica waited for a new view as long as it ever does."
    NewViewOfNothing "new-view-of-nothing" "A new view proposed no slot."
    NewViewOfEmptyBatch "new-view-of-empty-batch" "A new view proposed the empty batch for a slot of which nothing was certain."
    NewViewOfTwoViews "new-view-of-two-views" "A new view chose between certificates of two views for one slot."
    NewViewAfterThree "new-view-after-three" "A new view carried a certificate over from three views below or more."
    NewViewFetched "new-view-fetched" "A new primary fetched a batch before it began its view."
    NewViewSentAgain "new-view-sent-again" "A new view was sent to one replica that had missed it."
    NewViewByTransfer "new-view-by-transfer" "A replica entered a view after a state transfer that brought it there."
    PreparedAtOne "prepared-at-one" "A view ended with a slot prepared at a single correct replica."
    CommittedAtOne "committed-at-one" "A view ended with a slot executed by a single correct replica."
    CastAlone "cast-alone" "A view change told of a vote for which its replica holds no certificate."
    TransferEnded "transfer-ended" "A state was transferred."
    TransferLie "transfer-lie" "A source of a state was replaced since it lied."
    TransferSilence "transfer-silence" "A source of a state was replaced since it did not answer."
    TransferAgain "transfer-again" "A transfer began anew at a later checkpoint."
    TransferInViewChange "transfer-in-view-change" "A state was transferred between two views."
    TransferCut "transfer-cut" "A replica crashed in the middle of a transfer."
    StandbyTookState "standby-took-state" "A standby took a state over from members."
    StandbyPromoted "standby-promoted" "A standby took the place of its member."
    StandbyToldLie "standby-told-lie" "A standby refused what an attacker told it."
    LogWrittenAnew "log-written-anew" "A replica whose log was found damaged wrote anew what a start would need."
    Diverged "diverged" "A replica found its own state to differ from the certified one."
    StableInViewChange "stable-in-view-change" "A checkpoint became stable between two views."
    WindowFull "window-full" "A primary proposed the last slot of the window."
    WindowMoved "window-moved" "A primary went on after its window had been full."
    VoteBeforeProposal "vote-before-proposal" "A vote came before the proposal that it is for."
    CommitBeforePrepared "commit-before-prepared" "A commit came to a replica on which the slot was not prepared."
    Learned "learned" "A replica learned a decided batch that it had not accepted."
    VoteSentAgain "vote-sent-again" "A vote was sent again to one replica."
    BatchHandedOut "batch-handed-out" "A replica handed out a batch that was asked for."
    DecidedHandedOut "decided-handed-out" "A replica handed out a decided slot that was asked for."
    FetchedBatch "fetched-batch" "A replica asked for a batch."
    FetchedDecided "fetched-decided" "A replica asked for decided slots."
    FetchedViewChange "fetched-view-change" "A replica asked for a view change that a new view rests on."
    FetchedNewView "fetched-new-view" "A replica asked for a new view."
    FetchedPart "fetched-part" "A replica asked for buckets of a state that differ from its own."
    ConflictShown "conflict-shown" "A replica showed another, which voted for another batch, what the primary had signed."
    EvidenceOfPrepares "evidence-of-prepares" "A replica kept two conflicting votes to accept."
    EvidenceOfCommits "evidence-of-commits" "A replica kept two conflicting votes to commit."
    EvidenceOfCheckpoints "evidence-of-checkpoints" "A replica kept two conflicting votes on a state."
    EvidenceOfBatch "evidence-of-batch" "A replica kept a signed proposal that no correct primary makes."
    InvalidCodec "invalid-codec" "A message came that is none."
    InvalidBatch "invalid-batch" "A message came with a batch or request that is none."
    InvalidSignature "invalid-signature" "A message came with a signature that is none."
    InvalidSender "invalid-sender" "A message came that spoke for another replica than its sender."
    InvalidCertificate "invalid-certificate" "A certificate came without a quorum."
    InvalidDigest "invalid-digest" "A batch came that is not the one of its digest."
    InvalidForm "invalid-form" "A view change or new view came that breaks its rules."
    ClientBusy "client-busy" "A client was told to come back later."
    ClientOpened "client-opened" "A client opened a session."
    ClientEvicted "client-evicted" "A client was told that its session is gone."
    ClientForgotten "client-forgotten" "A client was told that its reply is no longer kept."
    ClientAnsweredAgain "client-answered-again" "A client that asked again got the reply that was kept."
    CrashBeforeSend "crash-before-send" "A replica crashed with its vote on disk, before it was sent."
    CrashBeforeCut "crash-before-cut" "A replica crashed with a checkpoint stable, before it cut its log."
    CrashBeforeInstall "crash-before-install" "A replica crashed with a transferred state whole, before it was made its own."
    CrashBeforeSync "crash-before-sync" "A replica crashed with records not on disk."
    CrashInCheckpoint "crash-in-checkpoint" "A replica crashed while it wrote a checkpoint."
    CrashInViewChange "crash-in-view-change" "A replica crashed between two views."
    CrashOfMoreThanF "crash-of-more-than-f" "More than f replicas were down at once."
    CrashOfAll "crash-of-all" "All replicas were down at once."
    SyncFailed "sync-failed" "A sync failed, and the replica ended."
    StartFromCheckpoint "start-from-checkpoint" "A replica started from a checkpoint."
    StartWithVotes "start-with-votes" "A replica started with votes of its own above its checkpoint."
    StartBetweenViews "start-between-views" "A replica started with a view change that no new view had followed."
    StartInLaterView "start-in-later-view" "A replica started in a view above zero, which its log holds."
    StartBatchLost "start-batch-lost" "A replica started with a batch lost that it had accepted or learned."
    StartViewChangeLost "start-view-change-lost" "A replica started with a view change of its own lost."
    VotesLostEmpty "votes-lost-empty" "A replica started on a log without its first record."
    VotesLostEarlier "votes-lost-earlier" "A replica that had lost votes was started again before it could vote."
    VotesAgain "votes-again" "A replica that had lost votes votes again in a later epoch."
    EpochEntered "epoch-entered" "A replica entered an epoch."
    EpochHigh "epoch-high" "A replica entered the second epoch or a later one."
    EpochByTransfer "epoch-by-transfer" "A replica came into an epoch by a state transfer."
    SlotVoid "slot-void" "A slot was prepared above the checkpoint that ended its epoch."
    ReadUnordered "read-unordered" "A read was answered that nobody had ordered."
    ReadRefused "read-refused" "A replica did not answer a read, since it was not known to be up to date."
    StartNewViewLost "start-new-view-lost" "A replica started with a new view lost that it had entered by."
}

/// Refusals that a simulation cannot come to: what is of another epoch is dropped before.
const OUT_OF_REACH: [Refusal; 1] = [Refusal::Epoch];

impl Mark {
    /// All that a campaign is to reach.
    pub fn all() -> impl Iterator<Item = Self> {
        let named = Self::NAMED.iter().map(|(mark, ..)| *mark);
        let refusals = Refusal::ALL.into_iter().filter(|refusal| !OUT_OF_REACH.contains(refusal));
        named.chain(refusals.map(Self::Refused))
    }

    /// What it means, in a sentence.
    pub fn meaning(self) -> &'static str {
        let named = Self::NAMED.iter().find(|(mark, ..)| *mark == self);
        named.map_or("A replica refused something, for this reason.", |(_, _, meaning)| meaning)
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self, Self::NAMED.iter().find(|(mark, ..)| mark == self)) {
            (_, Some((_, name, _))) => formatter.write_str(name),
            (other, None) => {
                let refusal = if let Self::Refused(refusal) = other { format!("{refusal:?}") } else { String::new() };
                formatter.write_str("refused")?;
                refusal.chars().try_for_each(|letter| {
                    let dash = if letter.is_uppercase() { "-" } else { "" };
                    write!(formatter, "{dash}{}", letter.to_ascii_lowercase())
                })
            }
        }
    }
}

/// How often each mark was reached.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Marks(BTreeMap<Mark, u64>);

impl Marks {
    /// Reached once more.
    pub fn reach(&mut self, mark: Mark) {
        self.add(mark, 1);
    }

    /// Reached so many times more.
    pub fn add(&mut self, mark: Mark, times: u64) {
        if times > 0 {
            *self.0.entry(mark).or_default() += times;
        }
    }

    /// Adds those of another run.
    pub fn merge(&mut self, other: &Self) {
        for (mark, times) in &other.0 {
            self.add(*mark, *times);
        }
    }

    /// How often a mark was reached.
    pub fn count(&self, mark: Mark) -> u64 {
        self.0.get(&mark).copied().unwrap_or(0)
    }

    /// Marks that were never reached.
    pub fn missed(&self) -> impl Iterator<Item = Mark> {
        Mark::all().filter(|mark| self.count(*mark) == 0)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn there_are_many_marks_and_each_has_a_name_of_its_own() {
        let names: BTreeSet<String> = Mark::all().map(|mark| mark.to_string()).collect();
        assert_eq!(names.len(), Mark::all().count());
        assert!(names.len() >= 60, "{} marks", names.len());
        assert!(Mark::all().all(|mark| mark.meaning().ends_with('.')));
    }

    #[test]
    fn what_was_not_reached_is_missed() {
        let mut marks = Marks::default();
        marks.reach(Mark::Diverged);
        marks.add(Mark::Refused(Refusal::Duplicate), 2);
        let mut both = marks.clone();
        both.merge(&marks);
        assert_eq!((both.count(Mark::Diverged), both.count(Mark::Refused(Refusal::Duplicate))), (2, 4));
        let missed: Vec<Mark> = both.missed().collect();
        assert_eq!(missed.len(), Mark::all().count() - 2);
        assert!(!missed.contains(&Mark::Diverged));
    }
}
