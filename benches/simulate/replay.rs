//! Replays a trace through the pool itself: the very code that decides in the daemon, with its own clock, its own actions carried out
//! in no time but for what starts and calls take.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use faasd::domain::function::{Runtime, Version};
use faasd::domain::ids::{Digest, FunctionId, Owner, SandboxId};
use faasd::domain::outcome::StartType;
use faasd::domain::policy::evict::Eviction;
use faasd::domain::policy::keep_alive::KeepAlive;
use faasd::domain::pool::{Action, EndReason, Event, Pool, Settings, Share, WaiterId};
use faasd::domain::time::Timestamp;
use uuid::Uuid;

use super::trace::Trace;

/// Starting a generic sandbox: an interpreter, as on the project's machine.
const START: Duration = Duration::from_millis(40);
/// In which every start that is under way is over.
const LAST_STARTS: Duration = Duration::from_secs(60);
/// Between two ticks, at least, as in the worker.
const TICK_MIN: Duration = Duration::from_millis(10);
/// No bound that the trace would meet.
const PLENTY: usize = 1 << 20;
/// Longer than any trace: nothing is frozen, which would only take time to replay.
const NEVER: Duration = Duration::from_secs(1 << 40);

/// What is compared.
#[derive(Clone, Copy, Debug)]
pub struct Policy {
    pub keep_alive: KeepAlive,
    pub eviction: Eviction,
    /// `None`: as much as they ask for.
    pub memory_budget_mb: Option<u64>,
}

/// What a policy made of a trace.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    pub calls: u64,
    /// Those that no idle sandbox of their function waited for, by their place in the trace.
    pub cold: Vec<usize>,
    /// Of each function that was called: the share of its calls that were cold.
    pub shares: Vec<f64>,
    /// Memory of sandboxes that were idle, by time.
    pub idle_mb_s: f64,
    pub waited: Duration,
    pub starts: u64,
    pub evicted: u64,
    pub refused: u64,
}

impl Outcome {
    pub fn cold_share(&self) -> f64 {
        self.cold.len() as f64 / self.calls.max(1) as f64
    }

    /// Of the functions, three in four have at most this share of cold calls.
    pub fn third_quartile(&self) -> f64 {
        let mut shares = self.shares.clone();
        shares.sort_by(f64::total_cmp);
        shares.get(shares.len() * 3 / 4).copied().unwrap_or(0.0)
    }

    pub fn idle_gb_h(&self) -> f64 {
        self.idle_mb_s / 1024.0 / 3600.0
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Started(SandboxId),
    Specialised(SandboxId),
    Done(SandboxId),
}

struct Replay<'a> {
    trace: &'a Trace,
    pool: Pool,
    now: Duration,
    versions: Vec<Arc<Version>>,
    agenda: BinaryHeap<Reverse<(Duration, u64, What)>>,
    next: u64,
    /// Function of each sandbox that has one, and whether it is idle.
    sandboxes: HashMap<SandboxId, (u32, bool)>,
    idle_mb: u64,
    cold_of: Vec<u64>,
    outcome: Outcome,
    actions: Vec<Action>,
    ended: Vec<SandboxId>,
}

pub fn replay(trace: &Trace, policy: Policy) -> Outcome {
    let mut replay = Replay::new(trace, policy);
    for (place, call) in trace.calls.iter().enumerate() {
        replay.until(Duration::from_millis(call.at_ms));
        let version = replay.versions[call.function as usize].clone();
        replay.apply(Event::Checkout { waiter: WaiterId(place as u64), version: &version, patient: true });
    }
    replay.finish()
}

impl<'a> Replay<'a> {
    fn new(trace: &'a Trace, policy: Policy) -> Self {
        let settings = Settings {
            sandboxes_max: PLENTY,
            concurrency_max: PLENTY,
            cpus: PLENTY,
            starting_max: PLENTY,
            per_version_max: 256,
            waiters_max: PLENTY,
            queue_wait_max: Duration::MAX,
            memory_budget_mb: policy.memory_budget_mb.unwrap_or(1 << 40),
            share: Share::WHOLE,
            prewarmed: [0; Runtime::ALL.len()],
            freeze_after: NEVER,
            keep_alive: policy.keep_alive,
            eviction: policy.eviction,
        };
        let versions = trace.functions.iter().enumerate().map(|(n, function)| version(n, function.memory_mb));
        Self {
            trace,
            pool: Pool::new(settings),
            now: Duration::ZERO,
            versions: versions.collect(),
            agenda: BinaryHeap::new(),
            next: 0,
            sandboxes: HashMap::new(),
            idle_mb: 0,
            cold_of: vec![0; trace.functions.len()],
            outcome: Outcome { calls: trace.all_calls(), ..Outcome::default() },
            actions: Vec::new(),
            ended: Vec::new(),
        }
    }

    /// All that happens before a time; then it is that time.
    fn until(&mut self, until: Duration) {
        let mut ticked = None;
        loop {
            let due = self.agenda.peek().map_or(Duration::MAX, |Reverse((at, ..))| *at);
            let earliest = ticked.map_or(self.now, |at| at + TICK_MIN);
            let tick = self.pool.next_tick(self.now).map_or(Duration::MAX, |at| at.max(earliest));
            if due.min(tick) > until {
                break;
            }
            self.pass_to(due.min(tick));
            if tick < due {
                ticked = Some(self.now);
                self.apply(Event::Tick);
            } else if let Some(Reverse((_, _, what))) = self.agenda.pop() {
                self.happen(what);
            }
        }
        self.pass_to(until);
    }

    fn pass_to(&mut self, now: Duration) {
        self.outcome.idle_mb_s += self.idle_mb as f64 * now.saturating_sub(self.now).as_secs_f64();
        self.now = now;
    }

    fn happen(&mut self, what: What) {
        match what {
            What::Started(sandbox) => self.apply(Event::Started { sandbox }),
            What::Specialised(sandbox) => {
                self.set_idle(sandbox, true);
                self.apply(Event::Specialised { sandbox });
            }
            What::Done(sandbox) => {
                self.set_idle(sandbox, true);
                self.apply(Event::Checkin { sandbox, reusable: true, cpu: Some(Duration::ZERO) });
            }
        }
    }

    fn set_idle(&mut self, sandbox: SandboxId, to: bool) {
        let Some((function, idle)) = self.sandboxes.get_mut(&sandbox) else { return };
        let mb = u64::from(self.trace.functions[*function as usize].memory_mb);
        match (std::mem::replace(idle, to), to) {
            (false, true) => self.idle_mb += mb,
            (true, false) => self.idle_mb -= mb,
            _ => {}
        }
    }

    fn plan(&mut self, after: Duration, what: What) {
        self.next += 1;
        self.agenda.push(Reverse((self.now + after, self.next, what)));
    }

    fn apply(&mut self, event: Event<'_>) {
        let mut actions = std::mem::take(&mut self.actions);
        self.pool.apply(event, self.now, &mut actions);
        for action in actions.drain(..) {
            self.obey(action);
        }
        self.actions = actions;
        while let Some(sandbox) = self.ended.pop() {
            self.apply(Event::Ended { sandbox });
        }
    }

    fn obey(&mut self, action: Action) {
        match action {
            Action::Assign { waiter, sandbox, start_type, .. } => {
                self.set_idle(sandbox, false);
                let place = waiter.0 as usize;
                let call = self.trace.calls[place];
                if start_type != StartType::Warm {
                    self.outcome.cold.push(place);
                    self.cold_of[call.function as usize] += 1;
                }
                self.outcome.waited += self.now.saturating_sub(Duration::from_millis(call.at_ms));
                self.plan(Duration::from_millis(call.hold_ms.into()), What::Done(sandbox));
            }
            Action::Start { sandbox, .. } => {
                self.outcome.starts += 1;
                self.plan(START, What::Started(sandbox));
            }
            Action::Specialise { sandbox, version } => {
                let function = version.function_id.0.as_u128() as u32;
                self.sandboxes.insert(sandbox, (function, false));
                self.plan(self.trace.functions[function as usize].init, What::Specialised(sandbox));
            }
            Action::End { sandbox, reason } => {
                self.set_idle(sandbox, false);
                self.sandboxes.remove(&sandbox);
                self.outcome.evicted += u64::from(reason == EndReason::Evicted);
                self.ended.push(sandbox);
            }
            Action::Refuse { .. } => self.outcome.refused += 1,
            Action::Freeze { .. } => {}
        }
    }

    fn finish(mut self) -> Outcome {
        // Who waits at the end is served still.
        self.until(self.now + LAST_STARTS);
        let mut calls = vec![0u64; self.trace.functions.len()];
        for call in &self.trace.calls {
            calls[call.function as usize] += 1;
        }
        for (n, function) in self.trace.functions.iter().enumerate() {
            let all = calls[n] + function.left_out;
            if all > 0 {
                self.outcome.shares.push(self.cold_of[n] as f64 / all as f64);
            }
        }
        self.outcome
    }
}

fn version(n: usize, memory_mb: u32) -> Arc<Version> {
    Arc::new(Version {
        function_id: FunctionId(Uuid::from_u128(n as u128)),
        number: 1,
        owner: Owner::new("trace"),
        function_name: "f".into(),
        description: String::new(),
        runtime: Runtime::Python,
        handler: None,
        memory_mb,
        auto_memory: false,
        timeout_ms: 900_000,
        env: Default::default(),
        code: Digest([0; 32]),
        code_bytes: 0,
        created_at: Timestamp(0),
    })
}
