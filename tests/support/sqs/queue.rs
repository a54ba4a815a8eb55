//! What the fast SQS keeps of one queue: which messages are ready, delayed or in flight. No I/O; time is handed in.
//!
//! ```text
//!  send ─▶ Ready ──receive──▶ InFlight ──delete──▶ gone
//!           ▲  ▲                 │
//!  delay ───┘  └── visibility ───┘          (received too often: moved to the dead-letter queue instead)
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use serde_json::value::RawValue;

/// As SQS has it for a queue that is not FIFO.
const IN_FLIGHT_MAX: usize = 120_000;
/// How long a FIFO queue remembers a deduplication id.
const DEDUPLICATION: Duration = Duration::from_secs(300);

pub struct Message {
    /// A JSON string, as it came.
    pub body: Box<RawValue>,
    pub md5: String,
    /// A JSON object, and the MD5 of what it says; nothing where there are none.
    pub attributes: Option<(Box<RawValue>, String)>,
    pub sent_ms: u64,
    pub first_received_ms: Option<u64>,
    pub received: u32,
    pub group: Option<String>,
    pub deduplication: Option<String>,
    pub sequence: u64,
    /// Of the last receive; 0 before the first.
    receipt: u64,
    state: State,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Ready { since: Duration },
    Delayed { until: Duration },
    InFlight { until: Duration },
}

/// What a message is sent with.
pub struct Sending {
    pub body: Box<RawValue>,
    pub md5: String,
    pub attributes: Option<(Box<RawValue>, String)>,
    pub delay: Option<Duration>,
    pub group: Option<String>,
    pub deduplication: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
pub enum Stale {
    /// The handle names no message of this queue.
    Invalid,
    /// Its message is there, and not in flight by this handle any more.
    NotInFlight,
}

pub struct Queue {
    pub attributes: BTreeMap<String, String>,
    pub fifo: bool,
    messages: HashMap<u64, Message>,
    ready: BTreeSet<(Duration, u64)>,
    timers: BTreeSet<(Duration, u64)>,
    /// Messages in flight of each FIFO group: others of it wait.
    groups: HashMap<String, usize>,
    deduplications: HashMap<String, (Duration, u64)>,
    in_flight: usize,
    counter: u64,
}

impl Queue {
    pub fn new(fifo: bool, attributes: BTreeMap<String, String>) -> Self {
        Self {
            attributes,
            fifo,
            messages: HashMap::new(),
            ready: BTreeSet::new(),
            timers: BTreeSet::new(),
            groups: HashMap::new(),
            deduplications: HashMap::new(),
            in_flight: 0,
            counter: 0,
        }
    }

    pub fn seconds(&self, attribute: &str) -> Duration {
        Duration::from_secs(self.number(attribute))
    }

    pub fn number(&self, attribute: &str) -> u64 {
        self.attributes.get(attribute).and_then(|text| text.parse().ok()).unwrap_or_default()
    }

    /// How often a message may be received before it goes to which queue.
    pub fn redrive(&self) -> Option<(u32, String)> {
        let policy: serde_json::Value = serde_json::from_str(self.attributes.get("RedrivePolicy")?).ok()?;
        let most = &policy["maxReceiveCount"];
        let most = most.as_u64().or_else(|| most.as_str()?.parse().ok())?;
        let name = policy["deadLetterTargetArn"].as_str()?.rsplit(':').next()?;
        Some((most as u32, name.to_owned()))
    }

    /// The message's number; that of the earlier one where a FIFO queue knows it already.
    pub fn send(&mut self, sending: Sending, now: Duration, wall_ms: u64) -> u64 {
        self.promote(now);
        if let Some(id) = sending.deduplication.as_ref().filter(|_| self.fifo) {
            self.deduplications.retain(|_, (until, _)| *until > now);
            if let Some((_, known)) = self.deduplications.get(id) {
                return *known;
            }
            self.deduplications.insert(id.clone(), (now + DEDUPLICATION, self.counter + 1));
        }
        self.counter += 1;
        let delay = sending.delay.unwrap_or_else(|| self.seconds("DelaySeconds"));
        let message = Message {
            body: sending.body,
            md5: sending.md5,
            attributes: sending.attributes,
            sent_ms: wall_ms,
            first_received_ms: None,
            received: 0,
            group: sending.group,
            deduplication: sending.deduplication,
            sequence: self.counter,
            receipt: 0,
            state: State::Delayed { until: now + delay },
        };
        self.insert(self.counter, message, now);
        self.counter
    }

    /// One that was received too often elsewhere.
    pub fn adopt(&mut self, mut message: Message, now: Duration) {
        self.counter += 1;
        message.state = State::Delayed { until: now };
        self.insert(self.counter, message, now);
    }

    fn insert(&mut self, id: u64, mut message: Message, now: Duration) {
        match message.state {
            State::Delayed { until } if until > now => {
                self.timers.insert((until, id));
            }
            _ => {
                message.state = State::Ready { since: self.place(now) };
                self.ready.insert((self.place(now), id));
            }
        }
        self.messages.insert(id, message);
    }

    /// In a FIFO queue a message that comes back keeps its place.
    fn place(&self, since: Duration) -> Duration {
        if self.fifo { Duration::ZERO } else { since }
    }

    /// Makes ready what is due.
    pub fn promote(&mut self, now: Duration) {
        while let Some(&(due, id)) = self.timers.first()
            && due <= now
        {
            self.timers.pop_first();
            let since = self.place(due);
            let Some(message) = self.messages.get_mut(&id) else { continue };
            let was = std::mem::replace(&mut message.state, State::Ready { since });
            self.ready.insert((since, id));
            if matches!(was, State::InFlight { .. }) {
                let group = message.group.clone();
                self.leave_flight(group.as_deref());
            }
        }
    }

    fn leave_flight(&mut self, group: Option<&str>) {
        self.in_flight -= 1;
        if let Some(group) = group.filter(|_| self.fifo)
            && let Some(count) = self.groups.get_mut(group)
        {
            *count -= 1;
            if *count == 0 {
                self.groups.remove(group);
            }
        }
    }

    pub fn next_due(&self) -> Option<Duration> {
        self.timers.first().map(|timer| timer.0)
    }

    pub fn has_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub fn is_over_limit(&self) -> bool {
        self.in_flight >= IN_FLIGHT_MAX
    }

    /// Numbers and receipts of what is in flight from now on; and what was received too often, which is taken out.
    pub fn receive(&mut self, max: usize, visibility: Duration, now: Duration, wall_ms: u64) -> Received {
        self.promote(now);
        let redrive = self.redrive();
        let mut received =
            Received { handed: Vec::new(), spent: Vec::new(), to: redrive.as_ref().map(|r| r.1.clone()) };
        let locked: Vec<String> = self.groups.keys().cloned().collect();
        let mut skipped = Vec::new();
        while received.handed.len() < max
            && let Some((since, id)) = self.ready.pop_first()
        {
            let Some(message) = self.messages.get_mut(&id) else { continue };
            if self.fifo && message.group.as_ref().is_some_and(|group| locked.contains(group)) {
                skipped.push((since, id));
                continue;
            }
            if redrive.as_ref().is_some_and(|(most, _)| message.received >= *most) {
                received.spent.extend(self.messages.remove(&id));
                continue;
            }
            self.counter += 1;
            message.received += 1;
            message.first_received_ms.get_or_insert(wall_ms);
            message.receipt = self.counter;
            message.state = State::InFlight { until: now + visibility };
            self.timers.insert((now + visibility, id));
            self.in_flight += 1;
            if let Some(group) = message.group.clone().filter(|_| self.fifo) {
                *self.groups.entry(group).or_default() += 1;
            }
            received.handed.push((id, self.counter));
        }
        self.ready.extend(skipped);
        received
    }

    pub fn message(&self, id: u64) -> Option<&Message> {
        self.messages.get(&id)
    }

    /// The last handle deletes a message even when its time in flight is over, but not in a FIFO queue. A standard queue takes an
    /// older handle too, and does nothing.
    pub fn delete(&mut self, id: u64, receipt: u64, now: Duration) -> Result<(), Stale> {
        self.promote(now);
        if receipt > self.counter {
            return Err(Stale::Invalid);
        }
        let Some(message) = self.messages.get(&id) else { return Ok(()) };
        let is_last = message.receipt == receipt;
        match message.state {
            State::InFlight { until } if is_last => {
                self.timers.remove(&(until, id));
                let group = self.messages.remove(&id).and_then(|message| message.group);
                self.leave_flight(group.as_deref());
                Ok(())
            }
            _ if self.fifo => Err(Stale::NotInFlight),
            State::Ready { since } if is_last => {
                self.ready.remove(&(since, id));
                self.messages.remove(&id);
                Ok(())
            }
            _ => Ok(()),
        }
    }

    pub fn change_visibility(
        &mut self,
        id: u64,
        receipt: u64,
        visibility: Duration,
        now: Duration,
    ) -> Result<(), Stale> {
        self.promote(now);
        if receipt > self.counter {
            return Err(Stale::Invalid);
        }
        let since = self.place(now);
        let message = self.messages.get_mut(&id).ok_or(Stale::Invalid)?;
        let State::InFlight { until } = message.state else { return Err(Stale::NotInFlight) };
        if message.receipt != receipt {
            return Err(Stale::NotInFlight);
        }
        self.timers.remove(&(until, id));
        if visibility.is_zero() {
            message.state = State::Ready { since };
            let group = message.group.clone();
            self.ready.insert((since, id));
            self.leave_flight(group.as_deref());
        } else {
            message.state = State::InFlight { until: now + visibility };
            self.timers.insert((now + visibility, id));
        }
        Ok(())
    }

    pub fn purge(&mut self) {
        self.messages.clear();
        self.ready.clear();
        self.timers.clear();
        self.groups.clear();
        self.in_flight = 0;
    }

    /// Ready, in flight, delayed.
    pub fn counts(&mut self, now: Duration) -> [usize; 3] {
        self.promote(now);
        let ready = self.ready.len();
        [ready, self.in_flight, self.messages.len() - ready - self.in_flight]
    }
}

pub struct Received {
    pub handed: Vec<(u64, u64)>,
    pub spent: Vec<Message>,
    /// The queue that what is spent goes to.
    pub to: Option<String>,
}
