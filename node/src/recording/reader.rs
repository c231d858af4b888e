//! Reading a recording, which may come from anywhere: each frame is bounded and checked before it counts.

use std::fs::File;
use std::io::{self, BufReader, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use quorate_protocol::codec::{CodecError, ENCODED_BYTES_MAX};
use quorate_protocol::recording::Item;

use super::file::{self, FRAME_HEADER_BYTES, FirstBytes, HEADER_BYTES, Header};

/// Bytes that are read from the file at once.
const BUFFER_BYTES: usize = 1 << 20;

/// Why a recording cannot be read.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// The system refused.
    #[error("cannot read {}", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// It does not begin as a recording does, or its header is damaged.
    #[error("{} is no recording, or its first {HEADER_BYTES} bytes are damaged", path.display())]
    NotARecording {
        /// The file.
        path: PathBuf,
    },
    /// It is of another version of the format.
    #[error("{} is a recording of version {version}, and this program reads version {}", path.display(), file::VERSION)]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        version: u32,
    },
    /// A frame is not what was written.
    #[error("{} is damaged at byte {position}: {what}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Where the frame begins.
        position: u64,
        /// What is wrong with it.
        what: &'static str,
    },
    /// A whole frame holds something else than an item.
    #[error("{} holds at byte {position} what is no item of this version", path.display())]
    Item {
        /// The file.
        path: PathBuf,
        /// Where the frame begins.
        position: u64,
        /// What is wrong with it.
        #[source]
        source: CodecError,
    },
}

/// Reads a recording from its beginning.
#[derive(Debug)]
pub struct Reader {
    path: PathBuf,
    file: BufReader<File>,
    header: Header,
    /// Where the next frame begins.
    position: u64,
    is_torn: bool,
}

impl Reader {
    /// Opens a recording and reads its header.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn open(path: &Path) -> Result<Self, ReadError> {
        let path = path.to_owned();
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(source) => return Err(ReadError::Io { path, source }),
        };
        let mut file = BufReader::with_capacity(BUFFER_BYTES, file);
        let mut header = [0; HEADER_BYTES];
        match fill(&mut file, &mut header) {
            Ok(HEADER_BYTES) => {}
            Ok(_) => return Err(ReadError::NotARecording { path }),
            Err(source) => return Err(ReadError::Io { path, source }),
        }
        match Header::decode(&header) {
            FirstBytes::Whole(header) => Ok(Self { path, file, header, position: HEADER_BYTES as u64, is_torn: false }),
            FirstBytes::Version(version) => Err(ReadError::Version { path, version }),
            FirstBytes::Unreadable => Err(ReadError::NotARecording { path }),
        }
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// Where the next item begins, in bytes.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// Whether the file ended within a frame: its process was ended while it wrote.
    pub fn is_torn(&self) -> bool {
        self.is_torn
    }

    /// The next item; none at the end, be it within a frame.
    ///
    /// # Errors
    /// [`ReadError`].
    pub fn next_item(&mut self) -> Result<Option<Item>, ReadError> {
        let Some(item) = self.next_frame()? else { return Ok(None) };
        let decoded = Item::decode(&item);
        let length = (FRAME_HEADER_BYTES + item.len()) as u64;
        let item =
            decoded.map_err(|source| ReadError::Item { path: self.path.clone(), position: self.position, source })?;
        self.position += length;
        Ok(Some(item))
    }

    fn next_frame(&mut self) -> Result<Option<Bytes>, ReadError> {
        let mut header = [0; FRAME_HEADER_BYTES];
        let read = fill(&mut self.file, &mut header).map_err(|source| self.refused(source))?;
        if read < FRAME_HEADER_BYTES {
            self.is_torn |= read > 0;
            return Ok(None);
        }
        let Some((length, checksum)) = file::read_frame_header(&header) else {
            return Err(self.damaged("the header of a frame does not fit its checksum"));
        };
        if length as usize > ENCODED_BYTES_MAX {
            return Err(self.damaged("an item longer than any encoding may be"));
        }
        // What is there at most, so that a length alone takes no memory.
        let mut item = Vec::new();
        let taken = (&mut self.file).take(length.into()).read_to_end(&mut item);
        let taken = taken.map_err(|source| self.refused(source))?;
        if taken < length as usize {
            self.is_torn = true;
            return Ok(None);
        }
        if crc32fast::hash(&item) != checksum {
            return Err(self.damaged("an item does not fit its checksum"));
        }
        Ok(Some(item.into()))
    }

    fn refused(&self, source: io::Error) -> ReadError {
        ReadError::Io { path: self.path.clone(), source }
    }

    fn damaged(&self, what: &'static str) -> ReadError {
        ReadError::Damaged { path: self.path.clone(), position: self.position, what }
    }
}

impl ReadError {
    /// What the reader of the report can do about it.
    pub(crate) fn mend(&self) -> Option<&'static str> {
        match self {
            Self::Io { .. } => None,
            Self::NotARecording { .. } => Some("name the folder in which `quorate replica --record` wrote it"),
            Self::Version { .. } => Some("replay it with the program that recorded it"),
            Self::Damaged { .. } | Self::Item { .. } => {
                Some("copy it again from where it was made; with --until, what stands before can be replayed")
            }
        }
    }
}

/// Reads until `buffer` is full or the file ends; gives how much that was.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(count) => filled += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
