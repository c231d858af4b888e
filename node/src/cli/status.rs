//! `quorate status`: how each replica says that it is.

use std::fmt;
use std::io::{self, IsTerminal as _};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use clap::Args;
use quorate_protocol::configuration::ClientPolicy;
use quorate_protocol::number::ReplicaId;
use serde::{Serialize, Serializer};
use tokio::runtime;
use tokio::task::JoinSet;
use tokio::time::sleep;

use super::signals::StopSignals;
use super::{Output, standby};
use crate::client::{Account, Connection, ConnectionOptions, StandbyAddress};
use crate::configuration::{ClientConfiguration, key_file};
use crate::error::Exit;

/// How long a replica may take to be reached and to answer.
const PATIENCE: Duration = Duration::from_secs(1);

/// From one account to the next, between which requests are counted.
const BETWEEN_ACCOUNTS: Duration = Duration::from_millis(500);

/// From one picture to the next with `--watch`.
const BETWEEN_PICTURES: Duration = Duration::from_secs(1);

/// What makes a terminal begin anew: cursor to the corner, and everything after it erased.
const BEGIN_ANEW: &str = "\x1b[H\x1b[J";

/// Show how each replica says that it is
#[derive(Debug, Args)]
#[command(after_help = "Examples:
  quorate status --net net/client
  quorate status --net net/client --watch
  quorate status --net net/client --standby 127.0.0.1:4300=<KEY>

Each row is one replica's own word. Exit status: 0 if any replica is reached, 1 if none is.")]
pub(super) struct Arguments {
    /// The client folder of the cluster
    #[arg(long, value_name = "FOLDER")]
    net: PathBuf,
    /// Show it again every second, until Ctrl-C
    #[arg(long)]
    watch: bool,
    /// Show a standby, at this address and of this key, instead of the members
    #[arg(long, value_name = "HOST:PORT=KEY", value_parser = standby::parse_address)]
    standby: Option<StandbyAddress>,
}

/// What a standby says that it is.
const STANDBY: &str = "standby";

pub(super) fn run(arguments: Arguments, output: &mut Output) -> anyhow::Result<Exit> {
    let ClientConfiguration { genesis, key } = ClientConfiguration::load(&arguments.net)?;
    let configuration = Arc::new(genesis.configuration().clone());
    // Replies to a key go to its latest connections: this one must not take those of a client that works.
    let key = if configuration.parameters().clients == ClientPolicy::Any { key_file::generate()? } else { key };
    let runtime = runtime::Builder::new_current_thread().enable_all().build().context("cannot start the runtime")?;
    runtime.block_on(async {
        let options = match arguments.standby {
            Some(standby) => ConnectionOptions::to_standby(configuration, key, standby).await?,
            None => ConnectionOptions::resolve(configuration, key).await?,
        };
        let connection = Arc::new(Connection::open(options)?);
        let outcome = if arguments.watch { watch(&connection, output).await } else { once(&connection, output).await };
        if let Some(connection) = Arc::into_inner(connection) {
            connection.close().await;
        }
        outcome
    })
}

async fn once(connection: &Arc<Connection>, output: &mut Output) -> anyhow::Result<Exit> {
    let picture = Picture::take(connection, Rates::Now).await;
    output.show(&picture)?;
    Ok(if picture.reached() > 0 { Exit::Done } else { Exit::Failed })
}

async fn watch(connection: &Arc<Connection>, output: &mut Output) -> anyhow::Result<Exit> {
    let mut signals = StopSignals::listen_to_all().context("cannot listen for signals")?;
    let begins_anew = io::stdout().is_terminal() && !output.is_json();
    let mut before = None;
    loop {
        let began = Instant::now();
        let picture = tokio::select! {
            picture = Picture::take(connection, Rates::Since(before.as_ref())) => picture,
            _ = signals.next() => return Ok(Exit::Done),
        };
        if begins_anew {
            output.write(BEGIN_ANEW)?;
        }
        output.show(&picture)?;
        before = Some(picture);
        tokio::select! {
            () = sleep(BETWEEN_PICTURES.saturating_sub(began.elapsed())) => {}
            _ = signals.next() => return Ok(Exit::Done),
        }
    }
}

/// All replicas at about one time.
#[derive(Debug, Clone, Serialize)]
struct Picture {
    replicas: Vec<Row>,
}

/// One replica.
#[derive(Debug, Clone, Serialize)]
struct Row {
    id: u8,
    reachable: bool,
    /// Why it is not, if that is known.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    /// Requests that it executed a second, since the picture before.
    requests_per_second: Option<f64>,
    /// Without any word of the replica's each field is null.
    #[serde(flatten, serialize_with = "or_nulls")]
    account: Option<Account>,
    #[serde(skip)]
    taken: Instant,
    /// Who was asked: a standby is in the place of the first member, and has the number of another.
    #[serde(skip)]
    asked: ReplicaId,
}

/// Since when requests are counted.
#[derive(Debug, Clone, Copy)]
enum Rates<'a> {
    /// Since a first account that is asked for only to count from it.
    Now,
    /// Since the picture before, if there was one.
    Since(Option<&'a Picture>),
}

#[expect(clippy::ref_option, reason = "it is the signature that serde calls")]
fn or_nulls<S: Serializer>(account: &Option<Account>, serializer: S) -> Result<S::Ok, S::Error> {
    if let Some(account) = account {
        return account.serialize(serializer);
    }
    let mut fields = serde_json::json!(Account::default());
    for value in fields.as_object_mut().into_iter().flat_map(serde_json::Map::values_mut) {
        *value = serde_json::Value::Null;
    }
    fields.serialize(serializer)
}

impl Picture {
    /// Asks all replicas at once.
    async fn take(connection: &Arc<Connection>, rates: Rates<'_>) -> Self {
        let mut asking = JoinSet::new();
        for replica in connection.linked() {
            let connection = Arc::clone(connection);
            let (counts_from_now, before) = match rates {
                Rates::Now => (true, None),
                Rates::Since(before) => (false, before.and_then(|before| before.row(replica)).cloned()),
            };
            asking.spawn(async move {
                let before = if counts_from_now { Row::before_now(&connection, replica).await } else { before };
                Row::take(&connection, replica, before).await
            });
        }
        let mut replicas = asking.join_all().await;
        replicas.sort_by_key(|row| row.id);
        Self { replicas }
    }

    fn row(&self, replica: ReplicaId) -> Option<&Row> {
        self.replicas.iter().find(|row| row.asked == replica)
    }

    fn reached(&self) -> usize {
        self.replicas.iter().filter(|row| row.reachable).count()
    }
}

impl Row {
    /// Something to count requests from, and some time after it.
    async fn before_now(connection: &Connection, replica: ReplicaId) -> Option<Self> {
        let first = Self::ask(connection, replica).await;
        if first.reachable {
            sleep(BETWEEN_ACCOUNTS).await;
        }
        Some(first)
    }

    /// Asks a replica. Who was not reached just now is not asked again.
    async fn take(connection: &Connection, replica: ReplicaId, before: Option<Self>) -> Self {
        if let Some(before) = &before
            && !before.reachable
            && before.taken.elapsed() < BETWEEN_ACCOUNTS / 2
        {
            return before.clone();
        }
        let mut row = Self::ask(connection, replica).await;
        row.requests_per_second = before.and_then(|before| row.rate_since(&before));
        row
    }

    async fn ask(connection: &Connection, replica: ReplicaId) -> Self {
        let outcome = connection.status(replica, PATIENCE).await;
        let taken = Instant::now();
        let (account, error) = match outcome {
            Ok(account) => (Some(account), None),
            Err(_) => (None, Some(connection.reachability().await.reason(replica))),
        };
        let of_itself = account.as_ref().filter(|account| account.role == STANDBY).and_then(|account| account.id);
        let id = of_itself.unwrap_or_else(|| replica.value());
        Self { id, reachable: account.is_some(), error, requests_per_second: None, account, taken, asked: replica }
    }

    /// `None` unless both pictures show it, and it did not start again between them.
    fn rate_since(&self, before: &Self) -> Option<f64> {
        let passed = self.taken.saturating_duration_since(before.taken).as_secs_f64();
        let (now, before) = (self.account.as_ref()?, before.account.as_ref()?);
        let count = now.requests_executed.checked_sub(before.requests_executed)?;
        let count = f64::from(u32::try_from(count).ok()?);
        (passed > 0.0).then(|| count / passed)
    }

    /// What stands in each column.
    fn cells(&self) -> [String; COLUMNS] {
        let Some(account) = &self.account else {
            let mut cells = [const { String::new() }; COLUMNS];
            let [id, state, .., last] = &mut cells;
            *id = self.id.to_string();
            state.push_str("unreachable");
            last.push_str(self.error.as_deref().unwrap_or_default());
            return cells;
        };
        let Account { role, mode, view, primary, executed, stable, log_length, links, evidence, .. } = account;
        let proofs: Vec<String> = evidence.iter().map(|accused| format!("against {accused}")).collect();
        let down: Vec<String> =
            links.iter().filter(|link| link.state != "up").map(|link| link.peer.to_string()).collect();
        let down = if down.is_empty() { String::new() } else { format!(", not {}", down.join(" ")) };
        [
            self.id.to_string(),
            mode.clone(),
            role.clone(),
            view.to_string(),
            primary.to_string(),
            executed.to_string(),
            stable.to_string(),
            log_length.to_string(),
            self.requests_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}")),
            format!("{} of {} up{down}", account.links_up(), links.len()),
            if proofs.is_empty() { "-".to_owned() } else { proofs.join(", ") },
        ]
    }
}

/// Columns of the table.
const COLUMNS: usize = 11;

const HEADINGS: [&str; COLUMNS] =
    ["replica", "state", "role", "view", "primary", "executed", "stable", "log", "requests/s", "links", "evidence"];

impl fmt::Display for Picture {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rows: Vec<[String; COLUMNS]> =
            [HEADINGS.map(str::to_owned)].into_iter().chain(self.replicas.iter().map(Row::cells)).collect();
        // The last column is as wide as it likes.
        let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
        let widths: Vec<usize> = (0..COLUMNS).map(width).collect();
        for (number, row) in rows.iter().enumerate() {
            let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}")).collect();
            let line = cells.join("  ");
            let end = if number + 1 < rows.len() { "\n" } else { "" };
            write!(formatter, "{}{end}", line.trim_end())?;
        }
        for row in &self.replicas {
            let waits_for = row.account.as_ref().and_then(|account| account.waits_for.as_ref());
            match (row.account.as_ref(), waits_for) {
                (Some(account), _) if account.role == STANDBY => {
                    write!(formatter, "\nit stands by replica {}, and never votes", row.id)?;
                }
                (_, Some(waits_for)) => {
                    write!(formatter, "\nreplica {} does not vote yet: it waits for {waits_for}", row.id)?;
                }
                (_, None) => {}
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::LinkAccount;

    fn link(peer: u8, state: &str) -> LinkAccount {
        LinkAccount { peer, state: state.to_owned(), ..LinkAccount::default() }
    }

    fn row(id: u8, requests_executed: u64, taken: Instant) -> Row {
        let account = Account {
            role: "backup".to_owned(),
            mode: "normal".to_owned(),
            view: 3,
            primary: 3,
            executed: 130,
            stable: 128,
            log_length: 2,
            requests_executed,
            links: vec![link(1, "up"), link(2, "waiting"), link(3, "up")],
            evidence: vec![2],
            ..Account::default()
        };
        let asked = ReplicaId::new(id);
        Row { id, reachable: true, error: None, requests_per_second: None, account: Some(account), taken, asked }
    }

    fn unreachable(id: u8, taken: Instant) -> Row {
        let error = Some("timed out".to_owned());
        let asked = ReplicaId::new(id);
        Row { id, reachable: false, error, requests_per_second: None, account: None, taken, asked }
    }

    #[test]
    fn the_table_has_a_row_for_each_replica() {
        let now = Instant::now();
        let picture = Picture { replicas: vec![row(0, 0, now), unreachable(1, now)] };
        let expected = "\
replica  state        role    view  primary  executed  stable  log  requests/s  links               evidence
0        normal       backup  3     3        130       128     2    -           2 of 3 up, not 2    against 2
1        unreachable                                                                                timed out";
        let shown = picture.to_string();
        let squeeze = |text: &str| {
            text.lines().map(|line| line.split_whitespace().collect::<Vec<_>>().join(" ")).collect::<Vec<_>>()
        };
        assert_eq!(squeeze(&shown), squeeze(expected));
        let last_cells = ["evidence", "against 2", "timed out"];
        let columns: Vec<_> = shown.lines().zip(last_cells).map(|(line, cell)| line.find(cell).unwrap()).collect();
        assert!(columns.windows(2).all(|pair| pair[0] == pair[1]), "{shown}");
    }

    #[test]
    fn requests_a_second_are_counted_between_two_accounts_of_one_life() {
        let now = Instant::now();
        let later = now + Duration::from_secs(2);
        assert_eq!(row(0, 300, later).rate_since(&row(0, 100, now)), Some(100.0));
        assert_eq!(row(0, 50, later).rate_since(&row(0, 100, now)), None, "it was started again");
        assert_eq!(row(0, 300, later).rate_since(&unreachable(0, now)), None);
    }

    #[test]
    fn a_standby_is_found_again_by_whom_was_asked() {
        let standby = Row { asked: ReplicaId::new(0), ..row(3, 100, Instant::now()) };
        let picture = Picture { replicas: vec![standby] };
        assert!(picture.row(ReplicaId::new(0)).is_some() && picture.row(ReplicaId::new(3)).is_none());
    }

    #[test]
    fn the_json_has_the_fields_of_the_contract() {
        let now = Instant::now();
        let json = serde_json::to_value(Picture { replicas: vec![row(0, 0, now), unreachable(1, now)] }).unwrap();
        let [row, nobody] = [&json["replicas"][0], &json["replicas"][1]];
        assert_eq!((&nobody["reachable"], &nobody["view"]), (&false.into(), &().into()));
        for field in
            ["id", "reachable", "role", "view", "primary", "executed", "stable", "state_root", "links", "evidence"]
        {
            assert!(row.get(field).is_some() && nobody.get(field).is_some(), "{field}");
        }
    }
}
