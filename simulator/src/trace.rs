//! A run in space and time, as one page that stands alone: a lane a replica, messages as arrows, views as bands.

use std::collections::BTreeMap;

use quorate_protocol::number::ReplicaId;
use quorate_protocol::time::Time;
use serde::Serialize;

use crate::scenario::{Attacker, Scenario};

/// Messages that a trace keeps; of a longer run it shows the last.
const MESSAGES_MAX: usize = 60_000;

/// What the page shows at first: so long before the end of a failed run, or from the start of a good one.
const FOCUS_NANOSECONDS: u64 = 40_000_000;

/// Someone who has a lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Lane {
    Replica(ReplicaId),
    Client(usize),
}

/// Everything that a page shows, while it happens.
#[derive(Debug, Default)]
pub struct Trace {
    messages: std::collections::VecDeque<Message>,
    marks: Vec<Mark>,
    /// For each lane, when it came into which state.
    states: BTreeMap<usize, Vec<State>>,
    events: Vec<Event>,
    replicas: usize,
}

#[derive(Debug, Serialize)]
struct Message {
    from: usize,
    to: usize,
    sent: u64,
    arrived: u64,
    #[serde(skip_serializing_if = "core::ops::Not::not")]
    lost: bool,
    kind: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u64>,
    text: String,
}

#[derive(Debug, Serialize)]
struct Mark {
    lane: usize,
    at: u64,
    what: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    slot: Option<u64>,
    text: String,
}

#[derive(Debug, Serialize)]
struct Event {
    at: u64,
    text: String,
}

/// What a lane's band shows from a moment on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct State {
    at: u64,
    stance: Stance,
}

/// How a replica stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stance {
    /// It is in this view.
    In(u64),
    /// It asks for this view.
    Asking(u64),
    /// It is down.
    Down,
}

#[derive(Serialize)]
struct Band {
    lane: usize,
    from: u64,
    to: u64,
    view: u64,
    asking: bool,
    down: bool,
}

#[derive(Serialize)]
struct LaneHead {
    name: String,
    note: String,
    attacker: bool,
}

#[derive(Serialize)]
struct Page<'a> {
    title: &'a str,
    description: &'a str,
    failure: Option<&'a str>,
    end: u64,
    focus: Option<[u64; 2]>,
    lanes: Vec<LaneHead>,
    bands: Vec<Band>,
    messages: &'a std::collections::VecDeque<Message>,
    marks: &'a [Mark],
    events: &'a [Event],
}

/// A message on its way.
#[derive(Debug)]
pub(crate) struct Flight {
    pub(crate) from: Lane,
    pub(crate) to: Lane,
    pub(crate) sent: Time,
    /// Nothing, if it is lost.
    pub(crate) arrived: Option<Time>,
    pub(crate) kind: &'static str,
    pub(crate) slot: Option<u64>,
    pub(crate) text: String,
}

impl Trace {
    pub(crate) fn new(replicas: usize) -> Self {
        Self { replicas, ..Self::default() }
    }

    const fn lane(&self, lane: Lane) -> usize {
        match lane {
            Lane::Replica(id) => id.index(),
            Lane::Client(index) => self.replicas + index,
        }
    }

    pub(crate) fn fly(&mut self, flight: Flight) {
        if self.messages.len() == MESSAGES_MAX {
            self.messages.pop_front();
        }
        let sent = flight.sent.nanoseconds();
        // A lost message is drawn as if it had taken a millisecond.
        let arrived = flight.arrived.map_or_else(|| sent.saturating_add(1_000_000), Time::nanoseconds);
        self.messages.push_back(Message {
            from: self.lane(flight.from),
            to: self.lane(flight.to),
            sent,
            arrived,
            lost: flight.arrived.is_none(),
            kind: flight.kind,
            slot: flight.slot,
            text: flight.text,
        });
    }

    pub(crate) fn mark(&mut self, replica: ReplicaId, at: Time, what: &'static str, slot: Option<u64>, text: String) {
        let (lane, at) = (replica.index(), at.nanoseconds());
        self.marks.push(Mark { lane, at, what, slot, text });
    }

    /// Something that concerns all.
    pub(crate) fn event(&mut self, at: Time, text: String) {
        self.events.push(Event { at: at.nanoseconds(), text });
    }

    /// From now on a replica stands like this.
    pub(crate) fn stand(&mut self, replica: ReplicaId, at: Time, stance: Stance) {
        let state = State { at: at.nanoseconds(), stance };
        let states = self.states.entry(replica.index()).or_default();
        let is_new = states.last().is_none_or(|last| State { at: state.at, ..*last } != state);
        if is_new {
            states.push(state);
        }
    }

    /// The page.
    pub fn page(&self, scenario: &Scenario, end: Time, failure: Option<&str>) -> String {
        let end = end.nanoseconds();
        let focus = if failure.is_some() {
            [end.saturating_sub(FOCUS_NANOSECONDS), end]
        } else {
            [0, FOCUS_NANOSECONDS.min(end.max(1))]
        };
        let page = Page {
            title: if scenario.title.is_empty() { "A run" } else { &scenario.title },
            description: &scenario.description,
            failure,
            end,
            focus: Some(focus),
            lanes: Self::heads(scenario),
            bands: self.bands(end),
            messages: &self.messages,
            marks: &self.marks,
            events: &self.events,
        };
        let json = serde_json::to_string(&page).expect("a trace has only text and numbers");
        // Nothing in the data may end the element that holds it.
        include_str!("trace/page.html").replace("/*DATA*/", &json.replace('<', "\\u003c"))
    }

    fn heads(scenario: &Scenario) -> Vec<LaneHead> {
        let replica = |index: u8| {
            let attack = scenario.attackers.iter().find(|attacker| attacker.replica == index);
            let note = attack.map_or(String::new(), Attacker::title);
            LaneHead { name: format!("replica {index}"), note, attacker: attack.is_some() }
        };
        let client = |index: u8| LaneHead { name: format!("client {index}"), note: String::new(), attacker: false };
        (0..scenario.replicas).map(replica).chain((0..scenario.clients).map(client)).collect()
    }

    fn bands(&self, end: u64) -> Vec<Band> {
        let of_lane = |(lane, states): (&usize, &Vec<State>)| {
            let ends = states.iter().skip(1).map(|next| next.at).chain([end]);
            let band = |(state, to): (&State, u64)| Band {
                lane: *lane,
                from: state.at,
                to,
                view: match state.stance {
                    Stance::In(view) | Stance::Asking(view) => view,
                    Stance::Down => 0,
                },
                asking: matches!(state.stance, Stance::Asking(_)),
                down: state.stance == Stance::Down,
            };
            states.iter().zip(ends).map(band).collect::<Vec<_>>()
        };
        self.states.iter().flat_map(of_lane).collect()
    }
}
