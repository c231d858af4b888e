//! One link: hellos, then a reader for each lane that comes in and one writer for all that go out, until something ends
//! it. The three faces of the transport differ in their lanes and in what they tell the host.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use quinn::{Connection, ConnectionError, SendStream};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::transport::budget::{Budget, Permit};
use crate::transport::close::{LinkError, Violation};
use crate::transport::frame::{FRAME_HEADER_BYTES, HELLO_BYTES_MAX, StreamRole, hello, read_hello};
use crate::transport::lanes::{Dropped, LaneQueue, Write};
use crate::transport::reader::FrameReader;
use crate::transport::refusals::{ConnectionRefusal, Refusals};
use crate::transport::status::LinkState;

/// What the value that binds a connection is exported under (RFC 9266 in kind; the label is our own).
const BINDING_LABEL: &[u8] = b"EXPORTER-quorate-attach";

/// 32 bytes that both ends of a connection know, and nobody else: whoever signs them proves to sit at this connection.
pub type ChannelBinding = [u8; 32];

/// How one face of the transport tells its host.
pub(crate) trait LinkEvents: Send + Sync + 'static {
    type Event: Send + 'static;
    fn up(&self, binding: ChannelBinding) -> Self::Event;
    fn frame(&self, role: StreamRole, bytes: Bytes, permit: Permit) -> Self::Event;
    fn down(&self, error: LinkError) -> Self::Event;
}

/// A lane that goes out, on a stream that this side opens.
#[derive(Debug)]
pub(crate) struct Outgoing {
    pub(crate) role: StreamRole,
    /// Of the stream; the higher is sent first.
    pub(crate) priority: i32,
    pub(crate) queue: LaneQueue,
}

/// A lane that comes in, on a stream that the other side opens.
#[derive(Debug)]
pub(crate) struct Incoming {
    pub(crate) role: StreamRole,
    pub(crate) frame_bytes_max: u32,
    pub(crate) budget: Budget,
}

/// Patience with the other side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Deadlines {
    /// From the first packet to the end of the handshake, and again from there to the hellos.
    pub handshake: Duration,
    /// From a frame's first byte, or from when there was room for it, to its last byte.
    pub frame: Duration,
    /// For the other side to take the next bytes of what waits for it.
    pub stall: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self { handshake: Duration::from_secs(5), frame: Duration::from_secs(10), stall: Duration::from_secs(30) }
    }
}

/// A link to somebody, over one connection after the other.
pub(crate) struct Link<E: LinkEvents> {
    pub(crate) cluster: [u8; 32],
    /// Those that come first are written first; one or two.
    pub(crate) outgoing: Vec<Outgoing>,
    pub(crate) incoming: Vec<Incoming>,
    pub(crate) deadlines: Deadlines,
    pub(crate) host: E,
    pub(crate) events: mpsc::Sender<E::Event>,
    pub(crate) refusals: Arc<Refusals>,
    pub(crate) state: LinkState,
}

/// The streams of a connection after the hellos, in the order of the lanes.
struct Streams {
    writers: Vec<SendStream>,
    readers: Vec<FrameReader>,
}

impl<E: LinkEvents> Link<E> {
    /// Takes a frame for sending, or drops and counts it. Never waits.
    pub(crate) fn send(&self, role: StreamRole, frame: Bytes) -> Result<(), Dropped> {
        let lane = self.outgoing.iter().find(|lane| lane.role == role);
        let sent = lane.map_or(Err(Dropped::Unknown), |lane| lane.queue.push(frame));
        if sent.is_err() {
            self.state.on_drops(1);
        }
        sent
    }

    /// Bytes that wait to be sent.
    pub(crate) fn waiting_bytes(&self) -> usize {
        self.outgoing.iter().map(|lane| lane.queue.bytes()).sum()
    }

    /// Closes the connection, and gives back at once the room that what waits for it takes.
    pub(crate) fn give_up(&self, violation: Violation) {
        self.state.close(violation.into());
        let dropped = self.outgoing.iter().map(|lane| lane.queue.close()).sum();
        self.state.on_drops(dropped);
    }

    /// Lives on a connection until it ends, and closes it with the reason that it gives.
    pub(crate) async fn run(self: &Arc<Self>, connection: &Connection) -> LinkError {
        self.state.on_connection(connection);
        let greeted = match timeout(self.deadlines.handshake, self.greet(connection)).await {
            Ok(greeted) => greeted,
            Err(_elapsed) => Err(Violation::HelloDeadline.into()),
        };
        match greeted {
            Ok(streams) => self.live(connection, streams).await,
            Err(error) => {
                let error = self.end(connection, error);
                if matches!(error, LinkError::Violation(_)) {
                    self.refusals.count(ConnectionRefusal::Hello);
                }
                self.state.on_down(error.clone());
                error
            }
        }
    }

    /// Opens the own streams and waits for those of the other side, each with its hello.
    async fn greet(&self, connection: &Connection) -> Result<Streams, LinkError> {
        let mut writers = Vec::with_capacity(self.outgoing.len());
        for lane in &self.outgoing {
            let mut stream = connection.open_uni().await?;
            // Only a stream that was closed has no priority; this one was just opened.
            drop(stream.set_priority(lane.priority));
            stream.write_all(&hello(&self.cluster, lane.role)).await?;
            writers.push(stream);
        }
        let mut opened: Vec<Option<FrameReader>> = self.incoming.iter().map(|_lane| None).collect();
        for _stream in 0..self.incoming.len() {
            let mut reader = FrameReader::new(connection.accept_uni().await?, HELLO_BYTES_MAX, self.deadlines.frame);
            reader.length().await?;
            let lane = read_hello(reader.payload().await?, &self.cluster)?;
            let place = self.incoming.iter().position(|incoming| incoming.role as u8 == lane);
            let place = place.filter(|place| opened[*place].is_none()).ok_or(Violation::WrongLane { lane })?;
            reader.set_frame_bytes_max(self.incoming[place].frame_bytes_max);
            opened[place] = Some(reader);
        }
        Ok(Streams { writers, readers: opened.into_iter().flatten().collect() })
    }

    /// Up, frames, down.
    async fn live(self: &Arc<Self>, connection: &Connection, streams: Streams) -> LinkError {
        self.state.on_up();
        self.outgoing.iter().for_each(|lane| lane.queue.open());
        let mut error = LinkError::Shutdown;
        if self.events.send(self.host.up(channel_binding(connection))).await.is_ok() {
            error = self.carry(connection, streams).await;
        }
        let dropped = self.outgoing.iter().map(|lane| lane.queue.close()).sum();
        self.state.on_drops(dropped);
        let error = self.end(connection, error);
        tracing::debug!(remote = %connection.remote_address(), %error, "link down");
        self.state.on_down(error.clone());
        // An error says that the host is gone, which needs no answer.
        drop(self.events.send(self.host.down(error.clone())).await);
        error
    }

    /// Carries frames in both directions until one of the lanes, or the connection, ends.
    async fn carry(self: &Arc<Self>, connection: &Connection, streams: Streams) -> LinkError {
        let mut tasks = JoinSet::new();
        for (place, reader) in streams.readers.into_iter().enumerate() {
            tasks.spawn(Arc::clone(self).read(place, reader));
        }
        tasks.spawn(Arc::clone(self).write(streams.writers));
        let error = tokio::select! {
            ended = tasks.join_next() => ended.and_then(Result::ok).unwrap_or(LinkError::Shutdown),
            reason = connection.closed() => reason.into(),
        };
        tasks.shutdown().await;
        error
    }

    /// Closes the connection if it is not yet, and says why it ended: what this side did on purpose, else what the other
    /// side did wrong, else what QUIC says.
    fn end(&self, connection: &Connection, found: LinkError) -> LinkError {
        let error = self.state.closing().unwrap_or_else(|| match connection.close_reason() {
            _ if matches!(found, LinkError::Violation(_)) => found,
            None | Some(ConnectionError::LocallyClosed) => found,
            Some(reason) => reason.into(),
        });
        let (code, text) = error.farewell();
        connection.close(code, text.as_bytes());
        error
    }

    async fn read(self: Arc<Self>, place: usize, mut reader: FrameReader) -> LinkError {
        loop {
            if let Err(error) = self.read_frame(&self.incoming[place], &mut reader).await {
                return error;
            }
        }
    }

    /// One frame from the stream to the host. Room for it is taken before its payload is read.
    async fn read_frame(&self, lane: &Incoming, reader: &mut FrameReader) -> Result<(), LinkError> {
        let length = reader.length().await?;
        let permit = lane.budget.admit(length).await;
        let payload = reader.payload().await?;
        let permit = lane.budget.admit_whole(permit, length).await;
        self.state.on_frame_in(FRAME_HEADER_BYTES + payload.len());
        let event = self.host.frame(lane.role, payload, permit);
        self.events.send(event).await.map_err(|_host_is_gone| LinkError::Shutdown)
    }

    /// The one task that writes: all lanes in it, the first one first.
    async fn write(self: Arc<Self>, streams: Vec<SendStream>) -> LinkError {
        let mut lanes = self.outgoing.iter().zip(streams).map(|(lane, stream)| self.write_lane(lane, stream));
        let (first, second) = (lanes.next(), lanes.next());
        tokio::select! {
            biased;
            error = maybe(first) => error,
            error = maybe(second) => error,
        }
    }

    async fn write_lane(&self, lane: &Outgoing, mut stream: SendStream) -> LinkError {
        let mut write = Write::default();
        loop {
            lane.queue.take(&mut write).await;
            let size = write.coalesce();
            if let Err(error) = self.write_all(&mut stream, write.chunks()).await {
                return error;
            }
            self.state.on_frames_out(size.frames, size.bytes);
        }
    }

    /// Writes all, as long as the other side goes on taking it.
    async fn write_all(&self, stream: &mut SendStream, chunks: &mut [Bytes]) -> Result<(), LinkError> {
        let mut left = chunks;
        while !left.is_empty() {
            let written = timeout(self.deadlines.stall, stream.write_chunks(left)).await;
            let written = written.map_err(|_elapsed| Violation::Stalled)??;
            left = left.get_mut(written.chunks..).unwrap_or_default();
        }
        Ok(())
    }
}

/// The future, or one that never ends.
async fn maybe<T>(future: Option<impl Future<Output = T>>) -> T {
    match future {
        Some(future) => future.await,
        None => std::future::pending().await,
    }
}

/// The value that binds this connection.
fn channel_binding(connection: &Connection) -> ChannelBinding {
    let mut binding = [0; 32];
    connection
        .export_keying_material(&mut binding, BINDING_LABEL, b"")
        .expect("32 bytes are far below what TLS exports at a time");
    binding
}
