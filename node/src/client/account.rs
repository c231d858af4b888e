//! What a replica says of itself. One replica's word: for people to look at, never to rely on.

use std::collections::BTreeMap;

use quorate_protocol::codec::Blob;
use serde::{Deserialize, Serialize};

/// Characters of a text in an account that are kept.
const TEXT_CHARACTERS_MAX: usize = 200;

/// Entries of a list in an account that are kept.
const ENTRIES_MAX: usize = 64;

/// A replica's account of itself. What it does not say is zero or empty.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Account {
    /// Which member it says that it is, or stands by.
    #[serde(skip_serializing)]
    pub id: Option<u8>,
    /// `primary`, `backup`, `learner` if it has lost votes, or `standby`.
    pub role: String,
    /// Why it does not vote, if it does not, and what it waits for.
    pub waits_for: Option<String>,
    /// Its epoch.
    pub epoch: u64,
    /// Its view.
    pub view: u64,
    /// The primary of its view.
    pub primary: u8,
    /// `normal`, or what it is busy with instead.
    pub mode: String,
    /// The last slot that it executed.
    pub executed: u64,
    /// The slot of its stable checkpoint.
    pub stable: u64,
    /// The root of its state at the stable checkpoint, if it has got there itself.
    pub state_root: Option<String>,
    /// Slots above the stable checkpoint of which it knows something.
    pub log_length: u64,
    /// Requests that wait to be ordered.
    pub queue: u64,
    /// Open sessions.
    pub sessions: u64,
    /// Connected clients.
    pub clients: u64,
    /// Requests executed since it was started.
    pub requests_executed: u64,
    /// Views that it asked for since it was started.
    pub view_changes: u64,
    /// Messages of peers that counted for nothing.
    pub invalid_from_peers: u64,
    /// Messages of clients that counted for nothing.
    pub invalid_from_clients: u64,
    /// How many connections from outside it did not let in, or ended for others, by reason.
    pub connections_refused: BTreeMap<String, u64>,
    /// How long requests wait for the primary's proposal, in milliseconds, as a backup sees.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub wait_ms: Option<f64>,
    /// How long slots take from their proposal to their execution, in milliseconds, as a backup sees.
    pub ordering_ms: f64,
    /// How far it is with reading what is on its disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scrub: Option<ScrubAccount>,
    /// Whether its disk is full.
    pub disk_full: bool,
    /// Its links to the other replicas.
    pub links: Vec<LinkAccount>,
    /// Replicas that it holds proofs of misbehaviour against.
    pub evidence: Vec<u8>,
}

/// What a replica says of its reading of what is on its disk.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct ScrubAccount {
    /// Passes over the whole state that came to their end since the start.
    pub passes: u64,
    /// How much of this pass is done.
    pub percent: u8,
    /// Bytes read since the start.
    pub bytes: u64,
    /// Parts that were damaged.
    pub damaged: u64,
    /// Times that the whole log was read since the start.
    pub log_passes: u64,
    /// Times that the log was found damaged.
    pub log_damaged: u64,
}

/// What a replica says of a link to another.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct LinkAccount {
    /// The other replica.
    pub peer: u8,
    /// `up`, `connecting` or `waiting`.
    pub state: String,
    /// Round-trip time, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rtt_ms: Option<f64>,
    /// How often the link came up again.
    pub reconnects: u64,
    /// Frames that found no room or no connection.
    pub drops: u64,
    /// Why it went down the last time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_error: Option<String>,
}

impl Account {
    /// Reads an account. It comes from a replica that may lie: texts are cut and made harmless for a terminal.
    ///
    /// # Errors
    /// If it is no JSON object of this form.
    pub(super) fn read(bytes: &Blob) -> serde_json::Result<Self> {
        let mut account: Self = serde_json::from_slice(bytes)?;
        account.links.truncate(ENTRIES_MAX);
        account.evidence.truncate(ENTRIES_MAX);
        let reasons = std::mem::take(&mut account.connections_refused).into_iter().take(ENTRIES_MAX);
        account.connections_refused = reasons.map(|(reason, count)| (cleaned(reason), count)).collect();
        let optional = account.state_root.iter_mut().chain(&mut account.waits_for);
        let texts = [&mut account.role, &mut account.mode].into_iter().chain(optional);
        let links =
            account.links.iter_mut().flat_map(|link| Some(&mut link.state).into_iter().chain(&mut link.last_error));
        texts.chain(links).for_each(clean);
        Ok(account)
    }

    /// How many of its links are up.
    pub fn links_up(&self) -> usize {
        self.links.iter().filter(|link| link.state == "up").count()
    }
}

fn cleaned(mut text: String) -> String {
    clean(&mut text);
    text
}

fn clean(text: &mut String) {
    let printable = |character: char| if character.is_control() { '?' } else { character };
    *text = text.chars().take(TEXT_CHARACTERS_MAX).map(printable).collect();
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> serde_json::Result<Account> {
        Account::read(&text.as_bytes().into())
    }

    #[test]
    fn an_account_is_read_whatever_else_it_says() {
        let account = read(r#"{"id":1,"role":"backup","view":3,"links":[{"peer":0,"state":"up"}],"refusals":{"x":1}}"#);
        let account = account.expect("an account");
        assert_eq!((account.role.as_str(), account.view, account.links_up()), ("backup", 3, 1));
    }

    #[test]
    fn what_a_liar_writes_drives_no_terminal_and_is_short() {
        let account = read(&format!(r#"{{"role":"\u001b[2J","mode":"{}"}}"#, "x".repeat(5000))).expect("an account");
        assert_eq!(account.role, "?[2J");
        assert_eq!(account.mode.len(), TEXT_CHARACTERS_MAX);
        let account = read(&format!(r#"{{"waits_for":"\u001b{}"}}"#, "x".repeat(5000))).expect("an account");
        assert_eq!(account.waits_for.map(|text| text.len()), Some(TEXT_CHARACTERS_MAX));
        let many = format!(r#"{{"evidence":{:?}}}"#, vec![1; 5000]);
        assert_eq!(read(&many).expect("an account").evidence.len(), ENTRIES_MAX);
        let reasons: Vec<String> = (0..100).map(|number| format!(r#""{number}\u001b{}":1"#, "x".repeat(900))).collect();
        let account = read(&format!(r#"{{"connections_refused":{{{}}}}}"#, reasons.join(","))).expect("an account");
        assert_eq!(account.connections_refused.len(), ENTRIES_MAX);
        assert!(account.connections_refused.keys().all(|key| key.len() == TEXT_CHARACTERS_MAX && key.contains('?')));
    }

    #[test]
    fn what_is_no_account_is_refused() {
        for text in ["", "7", "null", r#"{"view":-1}"#, r#"{"view":"3"}"#] {
            assert!(read(text).is_err(), "{text}");
        }
    }
}
