//! Why a message was not acted on: the one list that metrics, logs and tests share.

/// Why a replica refused something. None of these is an error of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[non_exhaustive]
pub enum Refusal {
    /// It belongs to another epoch.
    Epoch,
    /// It belongs to a view that this replica has left, or is not of the view it asks for.
    OldView,
    /// It belongs to a view that this replica is not in yet.
    FutureView,
    /// Its slot is not between the watermarks.
    OutsideWatermarks,
    /// Its slot was proposed by the new view itself.
    ProposedByNewView,
    /// Another batch was accepted for the slot in this view.
    Conflict,
    /// It is known already.
    Duplicate,
    /// It is older than what its sender said since.
    Outdated,
    /// Its stamp is too far from this replica's clock.
    Clock,
    /// It is not of the view's primary.
    NotThePrimary,
    /// The request executed already.
    Executed,
    /// The request's number is outside its session's window.
    OutsideSession,
    /// The session does not exist.
    NoSession,
    /// The queue, or the client's share of it, is full.
    Busy,
    /// A new view does not follow from its view changes.
    NewViewWrong,
    /// Nobody asked for it.
    Unasked,
    /// The sender has used up what it may ask for in this interval.
    RateExceeded,
    /// It is not about anything that this replica holds.
    Nothing,
    /// The log has no room for a vote on it.
    LogFull,
    /// This replica does not vote now.
    NotVoting,
}

impl Refusal {
    /// All of them, in order.
    pub const ALL: [Self; 20] = [
        Self::Epoch,
        Self::OldView,
        Self::FutureView,
        Self::OutsideWatermarks,
        Self::ProposedByNewView,
        Self::Conflict,
        Self::Duplicate,
        Self::Outdated,
        Self::Clock,
        Self::NotThePrimary,
        Self::Executed,
        Self::OutsideSession,
        Self::NoSession,
        Self::Busy,
        Self::NewViewWrong,
        Self::Unasked,
        Self::RateExceeded,
        Self::Nothing,
        Self::LogFull,
        Self::NotVoting,
    ];
}
