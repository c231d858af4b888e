//! The door of an attacker: a socket in the replica's own folder, by which attacks are started and stopped while it runs.
//!
//! It is there only while a replica runs that was started as an attacker, and only for who may read the replica's key: the
//! folder is private. One line of JSON goes in, an [`Order`], and one comes back, an [`Answer`].

use std::fs::{self, File, Permissions};
use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::thread;
use std::time::Duration;

use quorate_protocol::number::ReplicaId;
use quorate_simulator::scenario::Attacker;
use serde::{Deserialize, Serialize};

use super::strategy::{self, Plan};

/// The socket's name in the replica's folder.
const NAME: &str = "attack.sock";

/// Longest order or answer.
const LINE_BYTES_MAX: u64 = 2 << 20;

/// How long either side waits for the other's line.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is asked of an attacker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Order {
    /// To play this from now on, instead of what it plays; nothing, to do all that a correct replica does.
    Play(Vec<Attacker>),
    /// To say what it plays.
    Show,
}

/// What an attacker answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Answer {
    /// What it plays now.
    Plays(String),
    /// Why it does not do what it was asked.
    Refused(String),
}

/// The attacker's side: open until this is dropped.
#[derive(Debug)]
pub(super) struct Door {
    path: PathBuf,
}

/// What stands behind the door.
struct Keeper {
    id: ReplicaId,
    size: usize,
    plays: String,
    orders: Sender<Plan>,
}

/// The socket as the system takes it: a path to it may be longer than that of a socket may be, but not the one by the open
/// folder.
fn reach(folder: &Path) -> io::Result<(File, PathBuf)> {
    let opened = File::open(folder)?;
    let path = PathBuf::from(format!("/proc/self/fd/{}/{NAME}", opened.as_raw_fd()));
    Ok((opened, path))
}

impl Door {
    /// Opens the door of replica `id` of a cluster of `size`, which `plays` something already. The folder must be locked: what
    /// an earlier process left there is removed.
    pub(super) fn open(
        folder: &Path,
        (id, size): (ReplicaId, usize),
        plays: String,
        orders: Sender<Plan>,
    ) -> io::Result<Self> {
        let path = folder.join(NAME);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let (_opened, reached) = reach(folder)?;
        let listener = UnixListener::bind(reached)?;
        let door = Self { path };
        fs::set_permissions(&door.path, Permissions::from_mode(0o600))?;
        let mut keeper = Keeper { id, size, plays, orders };
        // Ends with the process.
        thread::Builder::new().name("door".to_owned()).spawn(move || {
            for stream in listener.incoming() {
                if let Err(error) = stream.and_then(|stream| keeper.serve(&stream)) {
                    tracing::warn!(%error, "an order could not be taken");
                    thread::sleep(Duration::from_millis(10));
                }
            }
        })?;
        Ok(door)
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        // The next attacker removes it, if this one cannot.
        fs::remove_file(&self.path).ok();
    }
}

impl Keeper {
    fn serve(&mut self, stream: &UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let answer = match read(stream) {
            Ok(order) => self.obey(order),
            Err(error) => Answer::Refused(format!("not an order: {error}")),
        };
        write(stream, &answer)
    }

    fn obey(&mut self, order: Order) -> Answer {
        let Order::Play(part) = order else { return Answer::Plays(self.plays.clone()) };
        let plan = match strategy::plan(&part, self.size) {
            Ok(plan) => plan,
            Err(error) => return Answer::Refused(error),
        };
        if self.orders.send(plan).is_err() {
            return Answer::Refused("it is stopping".to_owned());
        }
        self.plays = strategy::title(&part);
        tracing::warn!(replica = self.id.value(), attacks = self.plays, "plays from now on");
        Answer::Plays(self.plays.clone())
    }
}

fn read<T: for<'a> Deserialize<'a>>(stream: &UnixStream) -> io::Result<T> {
    let mut line = String::new();
    BufReader::new(stream.take(LINE_BYTES_MAX)).read_line(&mut line)?;
    Ok(serde_json::from_str(&line)?)
}

fn write(mut stream: &UnixStream, line: &impl Serialize) -> io::Result<()> {
    let mut text = serde_json::to_string(line)?;
    text.push('\n');
    stream.write_all(text.as_bytes())
}

/// Gives an order to the attacker in a replica's folder.
///
/// # Errors
/// [`io::ErrorKind::NotFound`] and [`io::ErrorKind::ConnectionRefused`] say that no attacker runs there.
pub(crate) fn ask(folder: &Path, order: &Order) -> io::Result<Answer> {
    let (_opened, path) = reach(folder)?;
    let stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    write(&stream, order)?;
    read(&stream)
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    fn named(attack: &str) -> Order {
        Order::Play(vec![Attacker::named(0, attack.to_owned())])
    }

    #[test]
    fn an_order_is_checked_obeyed_and_answered_however_long_the_path() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("a-long-name".repeat(20));
        fs::create_dir(&folder).unwrap();
        let (sender, orders) = channel();
        let door = Door::open(&folder, (ReplicaId::new(0), 4), "none".to_owned(), sender).unwrap();
        assert_eq!(fs::metadata(folder.join(NAME)).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(ask(&folder, &Order::Show).unwrap(), Answer::Plays("none".to_owned()));
        assert_eq!(ask(&folder, &named("flood")).unwrap(), Answer::Plays("flood".to_owned()));
        assert!(format!("{:?}", orders.try_recv().unwrap()).contains("flood"));
        let Answer::Refused(why) = ask(&folder, &named("nonsense")).unwrap() else { unreachable!("it is unknown") };
        assert!(why.contains("nonsense") && orders.try_recv().is_err(), "{why}");
        assert_eq!(ask(&folder, &Order::Show).unwrap(), Answer::Plays("flood".to_owned()));
        assert_eq!(ask(&folder, &Order::Play(vec![])).unwrap(), Answer::Plays("none".to_owned()));
        drop(door);
        assert_eq!(ask(&folder, &Order::Show).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn what_is_no_order_is_refused_and_the_door_stays_open() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join(NAME), "left behind").unwrap();
        let (sender, _orders) = channel();
        let _door = Door::open(folder.path(), (ReplicaId::new(0), 4), "none".to_owned(), sender).unwrap();
        for line in ["\n", "rubbish\n", "{\"play\": 7}\n", "\"show\" and more\n"] {
            let mut stream = UnixStream::connect(folder.path().join(NAME)).unwrap();
            stream.write_all(line.as_bytes()).unwrap();
            let answer: Answer = read(&stream).unwrap();
            assert!(matches!(answer, Answer::Refused(_)), "{line}");
        }
        drop(UnixStream::connect(folder.path().join(NAME)).unwrap());
        assert_eq!(ask(folder.path(), &Order::Show).unwrap(), Answer::Plays("none".to_owned()));
    }
}
