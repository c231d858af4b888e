//! Reads frames from a QUIC stream, each within its deadline.

use std::time::Duration;

use bytes::Bytes;
use quinn::RecvStream;
use tokio::time::{Instant, timeout_at};

use crate::transport::close::{LinkError, Violation};
use crate::transport::frame::FrameDecoder;

/// Chunks (packets' worth of a stream) that one read takes.
const READ_CHUNKS: usize = 32;

/// A stream and the frame that is being read from it.
#[derive(Debug)]
pub(crate) struct FrameReader {
    stream: RecvStream,
    decoder: FrameDecoder,
    frame_deadline: Duration,
}

impl FrameReader {
    pub(crate) fn new(stream: RecvStream, frame_bytes_max: u32, frame_deadline: Duration) -> Self {
        Self { stream, decoder: FrameDecoder::new(frame_bytes_max), frame_deadline }
    }

    pub(crate) fn set_frame_bytes_max(&mut self, frame_bytes_max: u32) {
        self.decoder.set_frame_bytes_max(frame_bytes_max);
    }

    /// Waits, for however long, for the next frame to begin; then for its header within the deadline. Gives the length
    /// of its payload.
    pub(crate) async fn length(&mut self) -> Result<u32, LinkError> {
        let mut deadline = None;
        loop {
            if let Some(length) = self.decoder.length()? {
                return Ok(length);
            }
            if deadline.is_none() && self.decoder.is_within_frame() {
                deadline = Some(Instant::now() + self.frame_deadline);
            }
            self.read(deadline).await?;
        }
    }

    /// The payload of the frame whose length was given, within the deadline from now.
    pub(crate) async fn payload(&mut self) -> Result<Bytes, LinkError> {
        let mut deadline = None;
        loop {
            if let Some(payload) = self.decoder.frame() {
                return Ok(payload);
            }
            let deadline = *deadline.get_or_insert_with(|| Instant::now() + self.frame_deadline);
            self.read(Some(deadline)).await?;
        }
    }

    async fn read(&mut self, deadline: Option<Instant>) -> Result<(), LinkError> {
        let mut chunks = [const { Bytes::new() }; READ_CHUNKS];
        let read = self.stream.read_chunks(&mut chunks);
        let count = match deadline {
            None => read.await?,
            Some(deadline) => timeout_at(deadline, read).await.map_err(|_elapsed| Violation::FrameDeadline)??,
        };
        let Some(count) = count else { return Err(self.ended().into()) };
        chunks.into_iter().take(count).for_each(|chunk| self.decoder.push(chunk));
        Ok(())
    }

    fn ended(&self) -> Violation {
        if self.decoder.is_within_frame() { Violation::FrameTruncated } else { Violation::StreamEnded }
    }
}
