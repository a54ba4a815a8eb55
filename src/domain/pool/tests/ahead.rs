//! Functions that are not called: how long their sandboxes stay, and those made ahead of a call.

use super::*;

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

fn adaptive() -> Settings {
    let keep_alive = KeepAlive::Adaptive { standard: minutes(10), most: minutes(30) };
    Settings { keep_alive, eviction: Eviction::GreedyDual, ..settings() }
}

/// A pool in which a function is called once every half hour, a dozen times; its last sandbox is let go, the next number unused.
fn half_hourly(f: &Arc<Version>) -> (Bench, u64) {
    let mut bench = Bench::new(adaptive());
    let mut next = 1;
    for _ in 0..12 {
        next = call(&mut bench, next, f);
        bench.now += minutes(30);
        next = settle_ticks(&mut bench, next);
    }
    (bench, next)
}

/// One call on whatever sandbox there is, or on a new one of this number.
fn call(bench: &mut Bench, next: u64, f: &Arc<Version>) -> u64 {
    let actions = bench.checkout(1000, f);
    if let [Action::Assign { sandbox, .. }] = actions[..] {
        bench.checkin(sandbox.0);
        return next;
    }
    assert_eq!(actions, [start(next)]);
    bench.started(next);
    bench.specialised(next);
    bench.checkin(next);
    next + 1
}

/// Ticks at the present time until nothing comes of it; what is started is made.
fn settle_ticks(bench: &mut Bench, mut next: u64) -> u64 {
    loop {
        let actions = bench.apply(Event::Tick);
        if actions.is_empty() {
            return next;
        }
        for action in actions {
            match action {
                Action::End { sandbox, .. } => drop(bench.ended(sandbox.0)),
                Action::Start { sandbox, .. } => {
                    assert_eq!(sandbox, SandboxId(next));
                    bench.started(next);
                    bench.specialised(next);
                    next += 1;
                }
                _ => {}
            }
        }
    }
}

#[test]
fn a_predicted_call_finds_a_sandbox_that_was_made_ahead_of_it() {
    let f = python(1);
    let (mut bench, next) = half_hourly(&f);
    let called_at = bench.now;
    let next = call(&mut bench, next, &f);
    bench.now = called_at + minutes(1);
    settle_ticks(&mut bench, next);
    assert_eq!(bench.pool.sandboxes(), 0, "let go soon");
    let due = bench.pool.next_tick(bench.now).unwrap();
    assert_eq!(due, called_at + minutes(27));
    bench.now = due;
    assert_eq!(bench.apply(Event::Tick), [start(next)]);
    assert_eq!(bench.started(next), [specialise(next, &f)]);
    assert_eq!(bench.specialised(next), []);
    let before = bench.pool.made_ahead();
    assert_eq!(before.made, before.used + before.wasted + 1, "its call has not come yet");
    bench.now = called_at + minutes(30);
    assert_eq!(bench.checkout(1, &f).first(), Some(&assign(1, next, StartType::Warm)));
    assert_eq!(bench.pool.made_ahead(), MadeAhead { used: before.used + 1, ..before });
    bench.checkin(next);
    bench.checkout(2, &f);
    assert_eq!(bench.pool.made_ahead().used, before.used + 1, "once");
}

#[test]
fn what_was_made_ahead_in_vain_is_let_go_for_good() {
    let f = python(1);
    let (mut bench, next) = half_hourly(&f);
    let next = call(&mut bench, next, &f);
    let before = bench.pool.made_ahead();
    for _ in 0..4 * 60 {
        bench.now += minutes(1);
        assert!(settle_ticks(&mut bench, next) <= next + 1, "made ahead more than once");
    }
    assert_eq!((bench.pool.sandboxes(), bench.pool.versions.len()), (0, 0));
    let after = MadeAhead { made: before.made + 1, wasted: before.wasted + 1, ..before };
    assert_eq!(bench.pool.made_ahead(), after);
}

#[test]
fn nothing_is_made_ahead_at_the_cost_of_others_or_of_a_retired_version() {
    let (f, g) = (python(1), version_of(2, Runtime::Python, 9_900));
    let (mut bench, next) = half_hourly(&f);
    let next = call(&mut bench, next, &f);
    bench.now += minutes(1);
    let next = settle_ticks(&mut bench, next);
    bench.checkout(2000, &g);
    bench.started(next);
    bench.specialised(next);
    bench.now += minutes(28);
    assert_eq!(bench.apply(Event::Tick), [], "no room but by eviction");

    let (mut bench, next) = half_hourly(&f);
    call(&mut bench, next, &f);
    bench.now += minutes(1);
    let next = settle_ticks(&mut bench, next);
    bench.apply(Event::Retire { version: f.key() });
    bench.now += minutes(27);
    assert_eq!(settle_ticks(&mut bench, next), next, "nobody will call it any more");
}

/// Of one owner's share, a dozen half-hourly calls of `f` and then one of `other`, whose sandbox is busy when the next is due.
fn beside_a_busy_one(f: &Arc<Version>, other: &Arc<Version>, share: Share) -> (Bench, u64) {
    let (mut bench, next) = half_hourly(f);
    bench.pool.settings.share = share;
    let next = call(&mut bench, next, f);
    bench.now += minutes(1);
    let next = settle_ticks(&mut bench, next);
    bench.checkout(2000, other);
    bench.started(next);
    bench.specialised(next);
    assert_eq!((bench.pool.active(), bench.pool.sandboxes()), (1, 1));
    (bench, next + 1)
}

#[test]
fn what_is_made_ahead_counts_in_its_owner_s_share() {
    let (f, g) = (python(1), python(2));
    let mine = |bench: &Bench| {
        let owner = &bench.pool.owners[bench.pool.by_owner[&f.owner]];
        (owner.sandboxes, owner.held_mb)
    };
    let (mut bench, next) = beside_a_busy_one(&f, &g, Share { memory_mb: 256, ..Share::WHOLE });
    bench.now += minutes(28);
    assert_eq!(bench.apply(Event::Tick), [start(next)], "there is as much left");
    assert_eq!(mine(&bench), (2, 256));
    bench.started(next);
    bench.specialised(next);
    assert_eq!(mine(&bench), (2, 256));

    for share in [Share { memory_mb: 255, ..Share::WHOLE }, Share { sandboxes: 1, ..Share::WHOLE }] {
        let (mut bench, _) = beside_a_busy_one(&f, &g, share);
        bench.now += minutes(28);
        assert_eq!(bench.apply(Event::Tick), [], "{share:?}");
        assert_eq!(mine(&bench), (1, 128));
        assert_eq!((bench.pool.habits.expected(), bench.pool.next_tick(bench.now)), (0, None), "it is not tried again");
    }
}

#[test]
fn nothing_is_made_ahead_for_an_owner_whose_callers_wait_for_its_share() {
    let (f, g, large) = (python(1), python(2), version_of(3, Runtime::Python, 512));
    let (mut bench, _) = beside_a_busy_one(&f, &g, Share { memory_mb: 512, ..Share::WHOLE });
    assert_eq!(bench.checkout(3000, &large), [], "with the busy one it would be too much");
    bench.now += minutes(28);
    assert_eq!(bench.apply(Event::Tick), [], "though that would be within the share");
}

#[test]
fn another_owner_s_full_share_keeps_nobody_from_what_is_made_ahead() {
    let crowd = |n, memory_mb| {
        let version = version_of(n, Runtime::Python, memory_mb);
        Arc::new(Version { owner: Owner::new("crowd"), ..Version::clone(&version) })
    };
    let (f, g, large) = (python(1), crowd(2, 128), crowd(3, 512));
    let (mut bench, next) = beside_a_busy_one(&f, &g, Share { memory_mb: 512, ..Share::WHOLE });
    assert_eq!(bench.checkout(3000, &large), []);
    bench.now += minutes(28);
    assert_eq!(bench.apply(Event::Tick), [start(next)]);
}

#[test]
fn a_function_that_nothing_is_known_of_is_kept_as_by_the_fixed_policy() {
    let (mut bench, f) = (Bench::new(adaptive()), python(1));
    bench.busy(1, &f);
    bench.checkin(1);
    bench.apply(Event::Tick);
    bench.now += minutes(10) - Duration::from_millis(1);
    assert!(matches!(bench.apply(Event::Tick)[..], [Action::Freeze { .. }]));
    bench.now += Duration::from_millis(1);
    assert_eq!(bench.apply(Event::Tick), [end(1, EndReason::KeepAlive)]);
}

#[test]
fn surplus_sandboxes_of_a_function_that_is_called_are_let_go_the_last_is_not() {
    let (mut bench, f) = (Bench::new(adaptive()), python(1));
    bench.busy(1, &f);
    bench.busy(2, &f);
    bench.checkin(1);
    bench.checkin(2);
    for minute in 1..=20 {
        bench.now += minutes(1);
        bench.checkout(minute, &f);
        bench.checkin(2);
        let ended = bench.apply(Event::Tick).contains(&end(1, EndReason::KeepAlive));
        assert_eq!(ended, minute == 15, "minute {minute}");
    }
    assert_eq!(bench.checkout(99, &f), [assign(99, 2, StartType::Warm)]);
}

#[test]
fn a_frequent_function_stays_where_the_longest_idle_would_have_gone() {
    let mut bench = Bench::new(Settings { memory_budget_mb: 256, ..adaptive() });
    let (f, g, h) = (python(1), python(2), python(3));
    bench.checkout(1, &f);
    bench.now += Duration::from_millis(40);
    bench.started(1);
    bench.specialised(1);
    bench.checkin(1);
    for n in 10..20 {
        bench.checkout(n, &f);
        bench.checkin(1);
    }
    bench.now += Duration::from_millis(1);
    bench.busy(2, &g);
    bench.checkin(2);
    assert_eq!(bench.checkout(3, &h), [end(2, EndReason::Evicted)]);
}
