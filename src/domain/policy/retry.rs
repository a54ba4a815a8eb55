//! What becomes of an asynchronous invocation whose attempt failed.

use std::time::Duration;

use crate::domain::ids::InvocationId;
use crate::domain::outcome::Status;

/// See `queue.*` in the configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retry {
    /// All attempts together.
    pub attempts_max: u32,
    /// Before the second attempt; doubles from there.
    pub backoff: Duration,
    pub backoff_max: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The outcome stands as the final record.
    Final,
    /// Another attempt, not before this has passed.
    Retry { delay: Duration },
    /// Retries are exhausted: the record is DEAD and keeps the last failure.
    Bury,
}

/// A quarter of each delay is jitter, so that jobs which failed together don't come back together.
const JITTER_PART: u32 = 4;

impl Retry {
    /// After attempt number `attempt` (counted from 1) ended with `status`.
    pub fn after(&self, id: InvocationId, attempt: u32, status: Status) -> Verdict {
        match status {
            Status::Success | Status::Cancelled | Status::Dead => Verdict::Final,
            Status::Failed | Status::Timeout | Status::Queued | Status::Running => self.after_failure(id, attempt),
        }
    }

    /// After an attempt that the platform could not carry out.
    pub fn after_failure(&self, id: InvocationId, attempt: u32) -> Verdict {
        if attempt >= self.attempts_max { Verdict::Bury } else { Verdict::Retry { delay: self.delay(id, attempt) } }
    }

    /// Doubles with each attempt up to the bound; the same for the same invocation and attempt.
    fn delay(&self, id: InvocationId, attempt: u32) -> Duration {
        let doublings = attempt.saturating_sub(1).min(31);
        let full = self.backoff.saturating_mul(1 << doublings).min(self.backoff_max);
        full - full / JITTER_PART * jitter(id, attempt) / 256
    }
}

/// 0 to 255, spread over invocations and attempts (FNV-1a).
fn jitter(id: InvocationId, attempt: u32) -> u32 {
    let mut hash = 0x811c_9dc5_u32;
    for byte in id.0.as_bytes().iter().chain(&attempt.to_le_bytes()) {
        hash = (hash ^ u32::from(*byte)).wrapping_mul(0x0100_0193);
    }
    (hash >> 16) & 0xff
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    const RETRY: Retry =
        Retry { attempts_max: 3, backoff: Duration::from_secs(1), backoff_max: Duration::from_secs(60) };

    fn id(n: u128) -> InvocationId {
        InvocationId(Uuid::from_u128(n))
    }

    #[test]
    fn a_failing_call_has_three_attempts() {
        for status in [Status::Failed, Status::Timeout] {
            assert!(matches!(RETRY.after(id(1), 1, status), Verdict::Retry { .. }));
            assert!(matches!(RETRY.after(id(1), 2, status), Verdict::Retry { .. }));
            assert_eq!(RETRY.after(id(1), 3, status), Verdict::Bury);
        }
    }

    #[test]
    fn success_and_cancellation_stand() {
        assert_eq!(RETRY.after(id(1), 1, Status::Success), Verdict::Final);
        assert_eq!(RETRY.after(id(1), 1, Status::Cancelled), Verdict::Final);
    }

    proptest! {
        #[test]
        fn a_delay_doubles_within_its_bound_less_a_quarter(n: u128, attempt in 1u32..1000) {
            let retry = Retry { attempts_max: u32::MAX, ..RETRY };
            let full = Duration::from_secs(60).min(Duration::from_secs(1 << (attempt - 1).min(20)));
            let Verdict::Retry { delay } = retry.after(id(n), attempt, Status::Failed) else { panic!("no retry") };
            prop_assert!(delay <= full && delay >= full / 4 * 3, "{delay:?} of {full:?}");
            prop_assert_eq!(retry.after(id(n), attempt, Status::Failed), Verdict::Retry { delay });
        }
    }
}
