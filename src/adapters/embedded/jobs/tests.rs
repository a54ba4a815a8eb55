//! The queue's memory against a plain list of jobs that is searched and sorted at each step.

use proptest::prelude::*;

use super::*;

const VISIBILITY: u64 = 10;
const OWNERS: usize = 3;

fn owner_of(id: u128) -> usize {
    id as usize % OWNERS
}

fn owner(id: u128) -> Owner {
    Owner::new(["a", "b", "c"][owner_of(id)])
}

#[derive(Clone, Debug)]
enum Step {
    Add { id: u128, delay: u64 },
    Lease { max: usize, per_owner_max: usize },
    Extend { nth: usize },
    Remove { nth: usize },
    Release { nth: usize, delay: u64, counted: bool },
    FailToSettle { nth: usize },
    Pass { time: u64 },
}

fn step() -> impl Strategy<Value = Step> {
    let nth = 0..8_usize;
    prop_oneof![
        (0..20_u128, prop_oneof![Just(0), 1..15_u64]).prop_map(|(id, delay)| Step::Add { id, delay }),
        (1..4_usize, 1..5_usize).prop_map(|(max, per_owner_max)| Step::Lease { max, per_owner_max }),
        nth.clone().prop_map(|nth| Step::Extend { nth }),
        nth.clone().prop_map(|nth| Step::Remove { nth }),
        (nth.clone(), 0..15_u64, any::<bool>()).prop_map(|(nth, delay, counted)| Step::Release { nth, delay, counted }),
        nth.prop_map(|nth| Step::FailToSettle { nth }),
        (1..12_u64).prop_map(|time| Step::Pass { time }),
    ]
}

/// A job as one would write it down: since when (or from when on) it is ready, or until when it is leased.
#[derive(Debug)]
struct Plain {
    id: u128,
    attempts: u32,
    ready_at: u64,
    /// Orders those that became ready at the same time.
    order: u64,
    lease: Option<(u64, u64)>,
}

#[derive(Default)]
struct Model {
    jobs: Vec<Plain>,
    counter: u64,
}

impl Model {
    fn tick(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    fn expire(&mut self, now: u64) {
        for job in &mut self.jobs {
            if let Some((_, until)) = job.lease
                && until <= now
            {
                (job.lease, job.ready_at) = (None, until);
            }
        }
    }

    /// Checks one lease after the other: the owner's longest ready, the owner not at its most, and no other owner passed over twice.
    fn lease(&mut self, (max, per_owner_max): (usize, usize), now: u64, leased: &[Leased]) {
        self.expire(now);
        self.jobs.sort_by_key(|job| (job.ready_at, job.order));
        let mut taken = [0; OWNERS];
        for one in leased {
            let n = one.id.0.as_u128();
            let owner = owner_of(n);
            assert!(self.may_lease(owner, per_owner_max, now), "its owner has the most it may");
            for other in 0..OWNERS {
                let passed_over = taken[other] < taken[owner] && self.may_lease(other, per_owner_max, now);
                assert!(!passed_over, "owner {other} is passed over for {owner}");
            }
            taken[owner] += 1;
            let ready = |job: &&mut Plain| owner_of(job.id) == owner && job.lease.is_none() && job.ready_at <= now;
            let job = self.jobs.iter_mut().find(ready).expect("a ready job");
            job.attempts += 1;
            job.lease = Some((one.lease, now + VISIBILITY));
            assert_eq!((job.id, job.attempts), (n, one.attempt), "the longest ready of its owner");
        }
        for one in leased {
            let order = self.tick();
            self.jobs.iter_mut().filter(|job| job.id == one.id.0.as_u128()).for_each(|job| job.order = order);
        }
        let more = (0..OWNERS).any(|owner| self.may_lease(owner, per_owner_max, now));
        assert!(leased.len() == max || !more, "a job that could be leased stays");
    }

    fn may_lease(&self, owner: usize, per_owner_max: usize, now: u64) -> bool {
        let jobs = || self.jobs.iter().filter(|job| owner_of(job.id) == owner);
        let leased = jobs().filter(|job| job.lease.is_some()).count();
        leased < per_owner_max && jobs().any(|job| job.lease.is_none() && job.ready_at <= now)
    }

    fn held(&mut self, id: u128, lease: u64, now: u64) -> Option<usize> {
        self.expire(now);
        self.jobs.iter().position(|job| job.id == id && job.lease.is_some_and(|(held, _)| held == lease))
    }
}

fn id(n: u128) -> InvocationId {
    InvocationId(uuid::Uuid::from_u128(n))
}

fn at(time: u64) -> Duration {
    Duration::from_secs(time)
}

proptest! {
    /// Whatever happens, the memory hands out what a plain list would: each job to one holder, owners in turn,
    /// longest ready first.
    #[test]
    fn leases_are_those_of_a_plain_list(steps in prop::collection::vec(step(), 1..120)) {
        let (mut jobs, mut model, mut now) = (Jobs::default(), Model::default(), 0);
        // Every lease ever given, newest first.
        let mut given: Vec<(u128, u64)> = Vec::new();
        for step in steps {
            match step {
                Step::Pass { time } => now += time,
                Step::Add { id: n, delay } => {
                    // What is due comes before what is added now.
                    jobs.promote(at(now));
                    jobs.add(id(n), &owner(n), None, 0, at(now + delay), at(now));
                    if !model.jobs.iter().any(|job| job.id == n) {
                        let order = model.tick();
                        model.jobs.push(Plain { id: n, attempts: 0, ready_at: now + delay, order, lease: None });
                    }
                }
                Step::Lease { max, per_owner_max } => {
                    let leased = jobs.lease(max, per_owner_max, at(now), at(VISIBILITY));
                    model.lease((max, per_owner_max), now, &leased);
                    given.splice(0..0, leased.iter().map(|one| (one.id.0.as_u128(), one.lease)));
                }
                Step::Extend { nth } => if let Some(&(n, lease)) = given.get(nth) {
                    let held = model.held(n, lease, now);
                    if let Some(held) = held {
                        let order = model.tick();
                        model.jobs[held].lease = Some((lease, now + VISIBILITY));
                        model.jobs[held].order = order;
                    }
                    prop_assert_eq!(jobs.extend(id(n), lease, at(now), at(VISIBILITY)), held.is_some());
                },
                Step::Remove { nth } => if let Some(&(n, lease)) = given.get(nth) {
                    let held = model.held(n, lease, now);
                    let settled = jobs.settle(id(n), lease, at(now));
                    prop_assert_eq!(settled, held.map(|held| model.jobs[held].attempts));
                    if let Some(held) = held {
                        jobs.remove(id(n));
                        model.jobs.remove(held);
                    }
                },
                Step::Release { nth, delay, counted } => if let Some(&(n, lease)) = given.get(nth) {
                    let held = model.held(n, lease, now);
                    let settled = jobs.settle(id(n), lease, at(now));
                    prop_assert_eq!(settled.is_some(), held.is_some());
                    if let (Some(held), Some(attempts)) = (held, settled) {
                        let attempts = attempts - u32::from(!counted);
                        jobs.release(id(n), attempts, at(now + delay), at(now));
                        let order = model.tick();
                        let job = &mut model.jobs[held];
                        (job.attempts, job.ready_at, job.order, job.lease) = (attempts, now + delay, order, None);
                    }
                },
                Step::FailToSettle { nth } => if let Some(&(n, lease)) = given.get(nth) {
                    let held = model.held(n, lease, now);
                    prop_assert_eq!(jobs.settle(id(n), lease, at(now)).is_some(), held.is_some());
                    if held.is_some() {
                        // Nobody may have it meanwhile, even past its time.
                        prop_assert!(!jobs.extend(id(n), lease, at(now), at(VISIBILITY)));
                        jobs.unsettle(id(n));
                    }
                },
            }
            model.expire(now);
            let ready = || model.jobs.iter().filter(|job| job.lease.is_none() && job.ready_at <= now);
            let oldest_ms = ready().map(|job| (now - job.ready_at) * 1000).max().unwrap_or(0);
            let ready = ready().count();
            let leased = model.jobs.iter().filter(|job| job.lease.is_some()).count();
            let delayed = model.jobs.len() - ready - leased;
            let wanted = Backlog { ready: ready as u64, delayed: delayed as u64, leased: leased as u64, oldest_ms, dead: 0 };
            prop_assert_eq!(jobs.backlog(at(now)), wanted);
        }
    }
}

#[test]
fn a_job_that_waits_for_ever_does_not_keep_what_is_known_of_those_that_pass() {
    let mut jobs = Jobs::default();
    jobs.add(id(0), &owner(0), None, 0, at(0), at(0));
    jobs.add(id(3), &owner(3), None, 0, at(0), at(0));
    // Their owner has the most it may.
    let held = jobs.lease(1, 1, at(0), at(1_000_000)).remove(0);
    for n in 0..10_000 {
        jobs.add(id(1 + 3 * n), &owner(1), None, 0, at(n as u64), at(n as u64));
        let one = jobs.lease(1, 1, at(n as u64), at(VISIBILITY)).remove(0);
        assert!(jobs.settle(one.id, one.lease, at(n as u64)).is_some());
        jobs.remove(one.id);
        assert!(jobs.waits.len() <= 2 * (jobs.ready + 1) + OVER_MAX + 1, "{}", jobs.waits.len());
    }
    assert_eq!(jobs.backlog(at(10_000)).oldest_ms, 10_000_000);
    assert!(jobs.settle(held.id, held.lease, at(10_000)).is_some());
}
