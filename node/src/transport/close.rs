//! Why connections end: what one side tells the other (a code and a text), and what this side notes for its operator.

use quinn::{ConnectionError, ReadError, VarInt, WriteError};

/// Codes from here on are the host's own, see [`CloseReason`]; those below belong to the transport.
pub const HOST_CODE_FIRST: u32 = 0x100;
/// Longest text of the other side that is kept, in bytes.
const TEXT_BYTES_MAX: usize = 256;

/// A reason of the host's to close a connection: what the other side is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CloseReason {
    /// The host's own number; [`HOST_CODE_FIRST`] is added to it on the wire.
    pub code: u16,
    /// For a person to read, in at most 256 bytes; the rest is cut.
    pub text: String,
    /// Whether nobody does such a thing by mistake.
    pub is_offence: bool,
}

/// What the other side did that it must not do. Each has its own code, and closes the connection.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Violation {
    /// A stream did not start with a hello.
    #[error("a stream starts with something that is no hello of this protocol")]
    NoHello,
    /// The other side speaks another version.
    #[error("protocol version {theirs} where version {ours} is spoken")]
    WrongVersion {
        /// What the hello said.
        theirs: u16,
        /// What is spoken here.
        ours: u16,
    },
    /// The other side belongs to another cluster.
    #[error("a member or client of another cluster")]
    WrongCluster,
    /// The lane does not exist on this connection, or was opened already.
    #[error("a stream for lane {lane}, which is unknown here or open already")]
    WrongLane {
        /// What the hello said.
        lane: u8,
    },
    /// Not all streams were opened, with their hello, in time.
    #[error("no hello on each lane in time")]
    HelloDeadline,
    /// A frame's length is above the lane's bound.
    #[error("a frame of {bytes} bytes where at most {bytes_max} are taken")]
    FrameTooLarge {
        /// What the frame's header said.
        bytes: u32,
        /// The lane's bound.
        bytes_max: u32,
    },
    /// A frame of length zero.
    #[error("an empty frame")]
    FrameEmpty,
    /// A stream ended within a frame.
    #[error("a stream that ended within a frame")]
    FrameTruncated,
    /// A frame was started and not completed in time.
    #[error("a frame that was started and not completed in time")]
    FrameDeadline,
    /// A stream ended; they live as long as the connection.
    #[error("a stream that ended before its connection")]
    StreamEnded,
    /// The member with the higher id dialled; it is the lower one that dials.
    #[error("dialled by the member that has to wait for being dialled")]
    WrongDirection,
    /// The receiver of our frames is too slow for its queue.
    #[error("too slow a reader: up to {bytes_max} bytes may wait for it, fewer while much waits for others")]
    SlowReader {
        /// The bound of the queue.
        bytes_max: usize,
    },
    /// The receiver of our frames takes nothing more, though something waits for it.
    #[error("a reader that takes nothing more of what waits for it")]
    Stalled,
}

impl Violation {
    /// The application error code on the wire.
    pub fn code(&self) -> u32 {
        match self {
            Self::NoHello => 0x10,
            Self::WrongVersion { .. } => 0x11,
            Self::WrongCluster => 0x12,
            Self::WrongLane { .. } => 0x13,
            Self::HelloDeadline => 0x14,
            Self::FrameTooLarge { .. } => 0x20,
            Self::FrameEmpty => 0x21,
            Self::FrameTruncated => 0x22,
            Self::FrameDeadline => 0x23,
            Self::StreamEnded => 0x24,
            Self::WrongDirection => 0x30,
            Self::SlowReader { .. } => 0x31,
            Self::Stalled => 0x32,
        }
    }
}

/// Why a link ended, or never came up.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LinkError {
    /// The other side broke a rule, and was told.
    #[error("closed because of {0}")]
    Violation(#[from] Violation),
    /// The other side closed the connection and said why. The text is theirs: shortened, without control characters.
    #[error("closed by the other side with code {code:#x}: {text}")]
    ClosedByPeer {
        /// Their application error code; those of this protocol are [`Violation::code`]'s.
        code: u64,
        /// Their text.
        text: String,
    },
    /// The other side's QUIC or TLS refused or aborted the connection. The text is theirs, cleaned as above.
    #[error("refused by the other side: {text}")]
    RefusedByPeer {
        /// Their text.
        text: String,
    },
    /// QUIC or TLS refused the other side here: a key that is not the expected one, no common version, and so on.
    #[error("handshake or transport failed: {text}")]
    Failed {
        /// What QUIC says.
        text: String,
    },
    /// Where the other side is could not be found out.
    #[error("the name in {address} cannot be looked up: {text}")]
    LookUp {
        /// The address as it is configured.
        address: String,
        /// What the operating system says.
        text: String,
    },
    /// Nothing was heard from the other side for the idle bound or during the handshake.
    #[error("timed out")]
    TimedOut,
    /// The other side does not know the connection any more: it restarted.
    #[error("reset by the other side, which seems to have restarted")]
    Reset,
    /// A newer connection with the same member took its place.
    #[error("replaced by a newer connection")]
    Replaced,
    /// It was silent while others needed its place, or one of too many of its source.
    #[error("no places are left, and this connection gave way to another")]
    GaveWay,
    /// The host closed it.
    #[error("closed here: {}", .0.text)]
    ClosedHere(CloseReason),
    /// The transport shuts down.
    #[error("shut down")]
    Shutdown,
}

impl LinkError {
    /// Whether the other side sent what nobody sends by mistake, or for being slow or cut off.
    pub(crate) fn is_offence(&self) -> bool {
        use Violation::{FrameEmpty, FrameTooLarge, NoHello, WrongLane};
        match self {
            Self::ClosedHere(reason) => reason.is_offence,
            Self::Violation(violation) => {
                matches!(violation, NoHello | WrongLane { .. } | FrameTooLarge { .. } | FrameEmpty)
            }
            _ => false,
        }
    }

    /// What the other side is told: code and text.
    pub(crate) fn farewell(&self) -> (VarInt, String) {
        let code = match self {
            Self::Violation(violation) => violation.code(),
            Self::ClosedHere(reason) => HOST_CODE_FIRST + u32::from(reason.code),
            Self::Replaced => 0x1,
            Self::GaveWay => 0x2,
            Self::ClosedByPeer { .. }
            | Self::RefusedByPeer { .. }
            | Self::Failed { .. }
            | Self::LookUp { .. }
            | Self::TimedOut
            | Self::Reset
            | Self::Shutdown => 0x0,
        };
        let text = match self {
            Self::ClosedHere(reason) => clean(reason.text.as_bytes()),
            other => other.to_string(),
        };
        (VarInt::from_u32(code), text)
    }
}

impl From<ConnectionError> for LinkError {
    fn from(error: ConnectionError) -> Self {
        match error {
            ConnectionError::ApplicationClosed(close) => {
                Self::ClosedByPeer { code: close.error_code.into_inner(), text: clean(&close.reason) }
            }
            ConnectionError::ConnectionClosed(close) => {
                Self::RefusedByPeer { text: clean(close.to_string().as_bytes()) }
            }
            ConnectionError::TimedOut => Self::TimedOut,
            ConnectionError::Reset => Self::Reset,
            ConnectionError::LocallyClosed => Self::Shutdown,
            other @ (ConnectionError::VersionMismatch
            | ConnectionError::TransportError(_)
            | ConnectionError::CidsExhausted) => Self::Failed { text: clean(other.to_string().as_bytes()) },
        }
    }
}

impl From<ReadError> for LinkError {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::ConnectionLost(error) => error.into(),
            ReadError::Reset(_)
            | ReadError::ClosedStream
            | ReadError::IllegalOrderedRead
            | ReadError::ZeroRttRejected => Violation::StreamEnded.into(),
        }
    }
}

impl From<WriteError> for LinkError {
    fn from(error: WriteError) -> Self {
        match error {
            WriteError::ConnectionLost(error) => error.into(),
            WriteError::Stopped(_) | WriteError::ClosedStream | WriteError::ZeroRttRejected => {
                Violation::StreamEnded.into()
            }
        }
    }
}

/// Text from outside, made fit for a log: short, one line, nothing that drives a terminal.
fn clean(text: &[u8]) -> String {
    let shown = text.get(..TEXT_BYTES_MAX).unwrap_or(text);
    let printable = |character: char| if character.is_control() { '?' } else { character };
    String::from_utf8_lossy(shown).chars().map(printable).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_of_the_other_side_is_short_and_drives_no_terminal() {
        let text = clean(&[b"\x1b[2J\nhello\xff".as_slice(), &[b'x'; 1000]].concat());
        assert!(text.starts_with("?[2J?hello\u{fffd}xxx"));
        assert!(text.chars().count() <= TEXT_BYTES_MAX);
    }

    #[test]
    fn what_may_happen_by_mistake_is_no_offence() {
        let closed = |is_offence| LinkError::ClosedHere(CloseReason { code: 0, text: String::new(), is_offence });
        assert!(closed(true).is_offence() && !closed(false).is_offence());
        assert!(LinkError::Violation(Violation::FrameEmpty).is_offence());
        assert!(!LinkError::Violation(Violation::Stalled).is_offence() && !LinkError::GaveWay.is_offence());
    }

    #[test]
    fn codes_of_the_host_are_apart_from_those_of_the_transport() {
        let reason = CloseReason { code: 0, text: "session evicted".into(), is_offence: true };
        let (code, text) = LinkError::ClosedHere(reason).farewell();
        assert_eq!((code, text.as_str()), (VarInt::from_u32(HOST_CODE_FIRST), "session evicted"));
        assert!(Violation::SlowReader { bytes_max: 1 }.code() < HOST_CODE_FIRST);
    }
}
