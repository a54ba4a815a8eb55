//! One sandbox, or a few at once, through the port that the worker uses.

use std::error::Error;
use std::sync::Arc;
use std::time::{Duration, Instant};

use faasd::domain::function::Runtime;
use tokio::task::JoinSet;

use super::Options;
use super::machine::{Machine, call, specialisation, version};
use super::rows;

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// As many as the pool starts at once by default.
const AT_ONCE: usize = 4;
/// A generic sandbox has waited this long when its function comes: long enough for others to have had the processor's caches.
const WAITED: Duration = Duration::from_millis(50);

/// Between two calls of the sandbox that is frozen.
const RESTED: Duration = Duration::from_millis(2);

pub async fn measure(options: &Options) -> Result<()> {
    let machine = Arc::new(Machine::open().await?);
    let measured = measure_on(&machine, options).await;
    machine.driver.close().await;
    measured
}

async fn measure_on(machine: &Arc<Machine>, options: &Options) -> Result<()> {
    let supported = machine.driver.runtimes();
    let runtimes = [(Runtime::Provided, "native"), (Runtime::Python, "python"), (Runtime::Nodejs, "node")];
    for (runtime, name) in runtimes.into_iter().filter(|(runtime, _)| supported.contains(runtime)) {
        if options.wants("making") && runtime != Runtime::Nodejs {
            in_series(machine, runtime, name, options.sandboxes).await?;
            at_once(machine, runtime, name, options.sandboxes).await?;
        }
        if options.wants("specialise") {
            specialise(machine, runtime, name, options.sandboxes / 2).await?;
        }
    }
    if options.wants("freeze") {
        freeze(machine, options.sandboxes * 10).await?;
    }
    Ok(())
}

async fn in_series(machine: &Machine, runtime: Runtime, name: &str, sandboxes: usize) -> Result<()> {
    let (mut making, mut ending) = (Vec::new(), Vec::new());
    let begun = Instant::now();
    for _ in 0..sandboxes {
        let since = Instant::now();
        let sandbox = machine.start(runtime).await?;
        making.push(since.elapsed());
        let since = Instant::now();
        sandbox.terminate(Duration::ZERO).await;
        ending.push(since.elapsed());
    }
    let per_second = sandboxes as f64 / begun.elapsed().as_secs_f64();
    rows::times(&format!("sandbox, {name}: made"), making)?;
    rows::times(&format!("sandbox, {name}: ended"), ending)?;
    rows::add(&format!("sandboxes, {name}, in series: made and ended"), per_second, "/s")?;
    Ok(())
}

async fn at_once(machine: &Arc<Machine>, runtime: Runtime, name: &str, sandboxes: usize) -> Result<()> {
    let begun = Instant::now();
    let mut makers = JoinSet::new();
    for _ in 0..AT_ONCE {
        let machine = machine.clone();
        makers.spawn(async move {
            for _ in 0..sandboxes / AT_ONCE {
                let sandbox = machine.start(runtime).await?;
                sandbox.terminate(Duration::ZERO).await;
            }
            Ok::<_, faasd::ports::sandbox::SandboxError>(())
        });
    }
    while let Some(made) = makers.join_next().await {
        made??;
    }
    let made = sandboxes / AT_ONCE * AT_ONCE;
    rows::add(&format!("sandboxes, {name}: made and ended"), made as f64 / begun.elapsed().as_secs_f64(), "/s")?;
    Ok(())
}

async fn specialise(machine: &Machine, runtime: Runtime, name: &str, sandboxes: usize) -> Result<()> {
    let what = specialisation(runtime, &machine.code(runtime)?);
    let (mut specialising, mut calling) = (Vec::new(), Vec::new());
    for _ in 0..sandboxes {
        let sandbox = machine.start(runtime).await?;
        tokio::time::sleep(WAITED).await;
        let since = Instant::now();
        sandbox.specialise(&what).await.map_err(|error| format!("not specialised: {error:?}"))?;
        specialising.push(since.elapsed());
        let since = Instant::now();
        call(&*sandbox, &what.version).await?;
        calling.push(since.elapsed());
        sandbox.terminate(Duration::ZERO).await;
    }
    rows::times(&format!("sandbox, {name}: specialised"), specialising)?;
    rows::times(&format!("sandbox, {name}: first call"), calling)?;
    Ok(())
}

/// A Python sandbox that is called, frozen, and thawed by the next call; and the same without the freezing, to tell what is the pause's.
async fn freeze(machine: &Machine, times: usize) -> Result<()> {
    let runtime = Runtime::Python;
    let (sandbox, version) = (machine.start(runtime).await?, version(runtime));
    let what = specialisation(runtime, &machine.code(runtime)?);
    sandbox.specialise(&what).await.map_err(|error| format!("not specialised: {error:?}"))?;
    call(&*sandbox, &version).await?;
    let (mut freezing, mut thawing, mut replies, mut rested) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for _ in 0..times {
        let since = Instant::now();
        sandbox.freeze()?;
        freezing.push(since.elapsed());
        // The kernel stops its processes behind the write.
        tokio::time::sleep(RESTED).await;
        let since = Instant::now();
        sandbox.thaw()?;
        thawing.push(since.elapsed());
        call(&*sandbox, &version).await?;
        replies.push(since.elapsed());
        tokio::time::sleep(RESTED).await;
        let since = Instant::now();
        call(&*sandbox, &version).await?;
        rested.push(since.elapsed());
    }
    sandbox.terminate(Duration::ZERO).await;
    let rows = [
        ("sandbox: freeze", freezing),
        ("sandbox: thaw", thawing),
        ("sandbox: thaw to reply", replies),
        ("sandbox: call to reply after the same pause", rested),
    ];
    for (row, mut took) in rows {
        took.sort();
        rows::add(row, rows::quantile(&took, 0.5).as_secs_f64() * 1e6, "µs")?;
        rows::add(&format!("{row}, p99"), rows::quantile(&took, 0.99).as_secs_f64() * 1e6, "µs")?;
    }
    Ok(())
}
