//! A controller's right to the fleet's address: what it may do while it has the lease of it, and for how long.
//!
//! ```text
//!             granted                         silent
//! stands by ─────────► has the lease (until) ────────► … until is over
//!     ▲                   │    refused, given up             │
//!     └───────────────────┴──────────────────────────────────┘
//! ```
//!
//! The address itself knows no fences: whoever takes it last has it. So it is taken only early in a lease, for a bounded time, and whoever
//! has the lease looks again and again whether the address is really there.

use std::time::Duration;

/// How long a lease lasts. A holder that falls silent has a successor soon after.
pub const LEASE: Duration = Duration::from_secs(12);
/// The lease is renewed, and the address looked for, this often.
const RENEW_EVERY: Duration = Duration::from_secs(4);
/// Taking the address has failed after this …
pub const TAKE_WITHIN: Duration = Duration::from_secs(3);
/// … and what was asked for may still happen this much later, within the lease.
const LATE: Duration = Duration::from_secs(3);

/// The answer of whoever gives leases.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    /// Asked for at this time, from which it counts.
    Granted { asked: Duration, fence: u64 },
    /// Somebody else has it.
    Refused,
    /// No answer: what was granted goes on until its time is over.
    Silent,
}

/// See the module. Times are of one clock that never goes back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tenure {
    held: Option<Held>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Held {
    fence: u64,
    until: Duration,
}

impl Tenure {
    pub fn hear(&mut self, answer: Answer) {
        match answer {
            Answer::Granted { asked, fence } => self.held = Some(Held { fence, until: asked + LEASE }),
            Answer::Refused => self.held = None,
            Answer::Silent => {}
        }
    }

    /// The fence of the lease, while it lasts.
    pub fn holds(&self, now: Duration) -> Option<u64> {
        self.held.filter(|held| held.until > now).map(|held| held.fence)
    }

    /// Whether there is time left to take the address.
    pub fn may_take(&self, now: Duration) -> bool {
        self.held.is_some_and(|held| held.until >= now + TAKE_WITHIN + LATE)
    }

    /// Whether the lease is to be renewed, or asked for.
    pub fn is_due(&self, now: Duration) -> bool {
        self.held.is_none_or(|held| held.until <= now + (LEASE - RENEW_EVERY))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: Duration = Duration::from_secs(1);

    #[test]
    fn a_lease_counts_from_when_it_was_asked_for() {
        let mut tenure = Tenure::default();
        assert_eq!((tenure.holds(S), tenure.may_take(S), tenure.is_due(S)), (None, false, true));
        tenure.hear(Answer::Granted { asked: S, fence: 7 });
        assert_eq!(tenure.holds(S + LEASE - S), Some(7));
        assert_eq!(tenure.holds(S + LEASE), None);
        assert!(
            tenure.may_take(S + LEASE - TAKE_WITHIN - LATE) && !tenure.may_take(2 * S + LEASE - TAKE_WITHIN - LATE)
        );
        assert!(!tenure.is_due(4 * S) && tenure.is_due(5 * S));
        tenure.hear(Answer::Silent);
        assert_eq!(tenure.holds(2 * S), Some(7));
        tenure.hear(Answer::Refused);
        assert_eq!(tenure.holds(2 * S), None);
    }

    /// One of several controllers of a small world, which a test stops and lets go on as it likes.
    #[derive(Default)]
    struct Node {
        tenure: Tenure,
        stopped_until: Duration,
    }

    /// Who gives leases: by the fences' order, and with a clock that runs beside everybody's.
    #[derive(Default)]
    struct Giver {
        holder: Option<usize>,
        until: Duration,
        fence: u64,
    }

    impl Giver {
        fn ask(&mut self, node: usize, now: Duration) -> Answer {
            if self.holder != Some(node) || self.until <= now {
                if self.until > now && self.holder.is_some() {
                    return Answer::Refused;
                }
                self.fence += 1;
            }
            (self.holder, self.until) = (Some(node), now + LEASE);
            Answer::Granted { asked: now, fence: self.fence }
        }
    }

    proptest! {
        /// Whoever stops when, whoever is not answered: two never have the lease at once, an order to take the address is within the
        /// lease of whoever gives it, and half a minute after the last mishap the address is where the lease is.
        #[test]
        fn one_has_the_lease_and_soon_the_address(
            mishaps in prop::collection::vec((0_u32..120, 0_usize..3, 1_u32..40, any::<bool>()), 0..12),
            moved in prop::collection::vec(0_u32..120, 0..4),
        ) {
            let mut nodes: Vec<Node> = (0..3).map(|_| Node::default()).collect();
            let (mut giver, mut address) = (Giver::default(), None);
            for tick in 0..200_u32 {
                let now = tick * S;
                for &(_, node, lasts, _) in mishaps.iter().filter(|mishap| mishap.0 == tick) {
                    nodes[node].stopped_until = now + lasts * S;
                }
                if moved.contains(&tick) {
                    address = None;
                }
                for (n, node) in nodes.iter_mut().enumerate() {
                    if node.stopped_until > now {
                        continue;
                    }
                    if node.tenure.is_due(now) {
                        let unheard = mishaps.iter().any(|mishap| mishap.3 && mishap.0 <= tick && tick < mishap.0 + 5);
                        node.tenure.hear(if unheard { Answer::Silent } else { giver.ask(n, now) });
                    }
                    if node.tenure.may_take(now) && address != Some(n) {
                        prop_assert_eq!(giver.holder, Some(n));
                        prop_assert!(giver.until >= now + TAKE_WITHIN);
                        address = Some(n);
                    }
                }
                let holders = nodes.iter().filter(|node| node.tenure.holds(now).is_some()).count();
                prop_assert!(holders <= 1, "{} have it at {}", holders, tick);
                if tick > 190 {
                    prop_assert_eq!(holders, 1);
                    prop_assert_eq!(address, giver.holder);
                }
            }
        }
    }
}
