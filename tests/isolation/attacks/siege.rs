//! A daemon under attack: an attacker with an account of its own, another owner's function that must go on answering, and a list of what
//! went wrong, told at the end with every attack's id.

use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use serde_json::{Value, json};

use crate::support::client::Client;
use crate::support::daemon::{Builder, Daemon};
use crate::support::platform::ECHO;

/// An answer of the canary later than this is no service. Far above what it takes beside a full build on the same machine.
const CANARY_LIMIT: Duration = Duration::from_secs(15);
/// The canary's pause while an attack goes on.
const BETWEEN_CALLS: Duration = Duration::from_millis(100);
const CANARY: &str = "canary";

pub struct Siege {
    pub daemon: Daemon,
    /// An owner who may do everything but administer.
    pub mallory: Client,
    /// Another one, whose things are none of mallory's business.
    pub ann: Client,
    failures: Vec<String>,
    asked: u64,
}

/// One attack on a port: its id and what it does. It panics where the attacker wins.
pub struct Attack(pub &'static str, pub for<'a> fn(&'a Siege) -> Pin<Box<dyn Future<Output = ()> + 'a>>);

/// `attacks! { "id" => function, … }`: a table of async functions of a siege.
macro_rules! attacks {
    ($($id:literal => $function:ident),* $(,)?) => {
        const ATTACKS: &[crate::isolation::attacks::siege::Attack] = &[
            $(crate::isolation::attacks::siege::Attack($id, |siege| Box::pin($function(siege)))),*
        ];

        pub fn ids() -> Vec<&'static str> {
            ATTACKS.iter().map(|attack| attack.0).collect()
        }
    };
}
pub(super) use attacks;

impl Siege {
    pub async fn of(builder: Builder) -> Self {
        let daemon = builder.start().await;
        let all = ["deploy", "invoke", "read"];
        let (mallory, ann) = (daemon.caller("mallory", &all).await, daemon.caller("ann", &all).await);
        ann.deploy_python(CANARY, ECHO).await;
        let mut siege = Self { daemon, mallory, ann, failures: Vec::new(), asked: 0 };
        siege.judge("nothing", Ok(())).await;
        assert!(siege.failures.is_empty(), "the canary is dead before any attack: {:?}", siege.failures);
        siege
    }

    /// Notes how an attack went, and that the node still serves.
    pub async fn judge(&mut self, id: &str, outcome: Result<(), String>) {
        self.failures.extend(outcome.err().map(|error| format!("{id}: {error}")));
        self.asked += 1;
        let since = Instant::now();
        let answer = self.ann.run(CANARY, &json!(self.asked)).try_send().await;
        let alive = answer.as_ref().is_ok_and(|answer| {
            answer.status == 200
                && serde_json::from_slice(&answer.body).is_ok_and(|record: Value| record["result"] == json!(self.asked))
        });
        if !alive || since.elapsed() > CANARY_LIMIT {
            self.failures.push(format!("{id}: the canary after {:?}: {answer:?}", since.elapsed()));
        }
    }

    /// What `attack` comes to, and the longest that the canary took meanwhile.
    pub async fn beside<T>(&self, attack: impl Future<Output = T>) -> (T, Duration) {
        let mut worst = Duration::ZERO;
        let mut attack = std::pin::pin!(attack);
        loop {
            let since = Instant::now();
            let call = async {
                tokio::time::sleep(BETWEEN_CALLS).await;
                self.ann.call(CANARY, &json!(0)).await;
            };
            tokio::select! {
                biased;
                done = &mut attack => return (done, worst),
                () = call => worst = worst.max(since.elapsed().saturating_sub(BETWEEN_CALLS)),
            }
        }
    }

    /// Runs a table of attacks one after the other.
    pub async fn run(&mut self, attacks: &[Attack]) {
        for Attack(id, attack) in attacks {
            let outcome = AssertUnwindSafe(attack(self)).catch_unwind().await;
            let outcome = outcome.map_err(|panic| {
                let text = panic.downcast_ref::<String>().cloned();
                text.or_else(|| panic.downcast_ref::<&str>().map(|&text| text.to_owned())).unwrap_or_default()
            });
            self.judge(id, outcome).await;
        }
    }

    /// Fails with every attack that was not held off.
    #[track_caller]
    pub fn lift(self) {
        let Self { failures, daemon, .. } = self;
        let listed = failures.join("\n  ");
        // The daemon's log says nothing that the list doesn't.
        drop(daemon);
        assert!(failures.is_empty(), "{} attacks not held off:\n  {listed}", failures.len());
    }
}
