//! What this node holds of the queue: each lease with its receipt and its end. Pure; time is handed in, monotonic.

use std::collections::{BTreeSet, HashMap};
use std::time::Duration;

use crate::domain::ids::Owner;

use super::message::Message;

/// Which queue a message came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Source {
    Jobs,
    /// Where SQS puts what was received too often.
    Spent,
}

#[derive(Clone, Debug)]
pub(super) struct Held {
    pub message: Message,
    pub receipt: String,
    pub source: Source,
    pub attempt: u32,
    /// When the message was received: SQS counts its longest time in flight from there.
    pub since: Duration,
    pub until: Duration,
}

/// No longer than SQS says, so that what counts as held here is held there.
#[derive(Default)]
pub(super) struct Leases {
    held: HashMap<u64, Held>,
    owners: HashMap<Owner, usize>,
    ends: BTreeSet<(Duration, u64)>,
    counter: u64,
}

impl Leases {
    /// The lease's number in this run.
    pub fn add(&mut self, held: Held, now: Duration) -> u64 {
        self.drop_over(now);
        self.counter += 1;
        self.insert(self.counter, held);
        self.counter
    }

    fn insert(&mut self, number: u64, held: Held) {
        *self.owners.entry(held.message.job.owner.clone()).or_default() += 1;
        self.ends.insert((held.until, number));
        self.held.insert(number, held);
    }

    fn drop_over(&mut self, now: Duration) {
        while let Some(&(until, number)) = self.ends.first()
            && until <= now
        {
            self.remove(number);
        }
    }

    fn remove(&mut self, number: u64) -> Option<Held> {
        let held = self.held.remove(&number)?;
        self.ends.remove(&(held.until, number));
        if let Some(count) = self.owners.get_mut(&held.message.job.owner) {
            *count -= 1;
            if *count == 0 {
                self.owners.remove(&held.message.job.owner);
            }
        }
        Some(held)
    }

    pub fn of_owner(&mut self, owner: &Owner, now: Duration) -> usize {
        self.drop_over(now);
        self.owners.get(owner).copied().unwrap_or_default()
    }

    /// `None`: it is held no longer.
    pub fn get(&mut self, number: u64, now: Duration) -> Option<&Held> {
        self.drop_over(now);
        self.held.get(&number)
    }

    /// The holder's last word begins: nobody can say another.
    pub fn take(&mut self, number: u64, now: Duration) -> Option<Held> {
        self.drop_over(now);
        self.remove(number)
    }

    /// It could not be said: the lease goes on until its end.
    pub fn put_back(&mut self, number: u64, held: Held) {
        self.insert(number, held);
    }

    pub fn extended(&mut self, number: u64, until: Duration) {
        if let Some(mut held) = self.remove(number) {
            held.until = until;
            self.insert(number, held);
        }
    }

    pub fn lost(&mut self, number: u64) {
        self.remove(number);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::ids::{FunctionId, InvocationId, VersionKey};
    use crate::domain::job::{Job, Payload};
    use crate::domain::time::Timestamp;
    use bytes::Bytes;
    use uuid::Uuid;

    const SECOND: Duration = Duration::from_secs(1);

    fn held(owner: &str, until: Duration) -> Held {
        let job = Job {
            invocation: InvocationId(Uuid::from_u128(1)),
            owner: Owner::new(owner),
            version: VersionKey { function: FunctionId(Uuid::from_u128(2)), number: 3 },
            payload: Payload::Inline(Bytes::new()),
            model_id: None,
            accepted_at: Timestamp(0),
        };
        let (source, since, receipt) = (Source::Jobs, Duration::ZERO, String::new());
        Held { message: Message::new(job), receipt, source, attempt: 1, since, until }
    }

    #[test]
    fn a_lease_is_held_until_its_end_and_no_longer() {
        let mut leases = Leases::default();
        let number = leases.add(held("ann", SECOND * 30), Duration::ZERO);
        assert!(leases.get(number, SECOND * 29).is_some());
        leases.extended(number, SECOND * 59);
        assert!(leases.get(number, SECOND * 58).is_some());
        assert!(leases.get(number, SECOND * 59).is_none());
        assert!(leases.take(number, SECOND * 59).is_none());
    }

    #[test]
    fn owners_are_counted_by_what_they_hold_now() {
        let mut leases = Leases::default();
        let first = leases.add(held("ann", SECOND * 30), Duration::ZERO);
        leases.add(held("ann", SECOND * 40), Duration::ZERO);
        leases.add(held("bob", SECOND * 40), Duration::ZERO);
        let ann = Owner::new("ann");
        assert_eq!(leases.of_owner(&ann, SECOND), 2);
        let taken = leases.take(first, SECOND).unwrap();
        assert_eq!(leases.of_owner(&ann, SECOND), 1);
        leases.put_back(first, taken);
        assert_eq!((leases.of_owner(&ann, SECOND), leases.of_owner(&ann, SECOND * 30)), (2, 1));
        assert_eq!(leases.of_owner(&ann, SECOND * 40), 0);
    }
}
