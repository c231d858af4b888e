//! Results on stdout: as text for a person, or as one line of JSON.

use std::fmt::{self, Display};
use std::io::{self, Write};

use serde::Serialize;

/// Why a result could not be shown.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OutputError {
    /// Whoever read stdout has stopped reading: the program ends, and that is no failure.
    #[error("nobody reads stdout any more")]
    Closed,
    /// Stdout cannot be written, for instance because a disk is full.
    #[error("cannot write to stdout")]
    Io(#[source] io::Error),
}

/// Where results go. Nothing else writes to stdout.
pub struct Output {
    is_json: bool,
    sink: Box<dyn Write>,
}

impl fmt::Debug for Output {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Output").field("is_json", &self.is_json).finish_non_exhaustive()
    }
}

impl Output {
    /// Stdout, locked for as long as this lives.
    pub fn stdout(is_json: bool) -> Self {
        Self { is_json, sink: Box::new(io::stdout().lock()) }
    }

    /// Shows a result: its text, or its JSON on one line.
    ///
    /// # Errors
    /// [`OutputError`]
    pub fn show<R: Serialize + Display>(&mut self, result: &R) -> Result<(), OutputError> {
        if self.is_json { self.show_json(result) } else { self.write(&format!("{result}\n")) }
    }

    /// Shows what has no text form on stdout: nothing, unless JSON was asked for.
    ///
    /// # Errors
    /// [`OutputError`]
    pub fn show_json<R: Serialize>(&mut self, result: &R) -> Result<(), OutputError> {
        if !self.is_json {
            return Ok(());
        }
        let json = serde_json::to_string(result).map_err(|error| OutputError::Io(error.into()))?;
        self.write(&format!("{json}\n"))
    }

    /// Whether results are shown as JSON.
    pub fn is_json(&self) -> bool {
        self.is_json
    }

    /// Shows a text that is the same either way.
    ///
    /// # Errors
    /// [`OutputError`]
    pub fn write(&mut self, text: &str) -> Result<(), OutputError> {
        self.write_bytes(text.as_bytes())
    }

    /// Shows bytes that are the same either way.
    ///
    /// # Errors
    /// [`OutputError`]
    pub fn write_bytes(&mut self, bytes: &[u8]) -> Result<(), OutputError> {
        self.sink.write_all(bytes).and_then(|()| self.sink.flush()).map_err(|error| match error.kind() {
            io::ErrorKind::BrokenPipe => OutputError::Closed,
            _ => OutputError::Io(error),
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;

    struct Collected(Sender<Vec<u8>>);

    impl Write for Collected {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let sent = self.0.send(bytes.to_vec());
            sent.map(|()| bytes.len()).map_err(|error| io::Error::new(io::ErrorKind::BrokenPipe, error.to_string()))
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn collected(is_json: bool) -> (Output, Receiver<Vec<u8>>) {
        let (sender, receiver) = channel();
        (Output { is_json, sink: Box::new(Collected(sender)) }, receiver)
    }

    #[test]
    fn a_result_is_shown_as_text_or_as_one_line_of_json() {
        let (mut text, shown_text) = collected(false);
        let (mut json, shown_json) = collected(true);
        for output in [&mut text, &mut json] {
            output.show(&"two\nlines").unwrap();
        }
        assert_eq!(shown_text.recv().unwrap(), b"two\nlines\n");
        assert_eq!(shown_json.recv().unwrap(), b"\"two\\nlines\"\n");
    }

    #[test]
    fn a_reader_who_left_is_told_apart_from_a_failure() {
        let (mut output, receiver) = collected(false);
        drop(receiver);
        assert!(matches!(output.show(&1), Err(OutputError::Closed)));
    }
}
