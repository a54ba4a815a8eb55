//! What keep-alive and eviction cost: a trace through the daemon's own pool, by each policy. `make simulate`.
//!
//! ```text
//! make simulate                                     a synthetic week
//! make simulate ARGS="--functions 1000 --days 14 --seed 7"
//! make simulate ARGS="invocations_per_function_md.anon.d01.csv …"     the Azure trace of 2019, or of 2021
//! ```

#![allow(clippy::print_stdout, reason = "its output is what it is for")]

mod azure;
mod dice;
mod hours;
mod replay;
mod synthetic;
mod trace;

use std::fs::File;
use std::io::BufReader;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use faasd::domain::policy::evict::Eviction;
use faasd::domain::policy::keep_alive::KeepAlive;

use replay::{Outcome, Policy, replay};
use trace::Trace;

#[derive(Parser)]
#[command(about = "Replays a trace of calls through the pool by several policies")]
struct Options {
    /// Files of the Azure Functions trace of 2019 or 2021; none: a synthetic trace
    files: Vec<std::path::PathBuf>,
    /// Functions of the synthetic trace, or the most that are read from files
    #[arg(long, default_value_t = 500)]
    functions: u32,
    /// Days of the synthetic trace
    #[arg(long, default_value_t = 7)]
    days: u32,
    /// Of the synthetic trace
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What `cargo bench` adds
    #[arg(long, hide = true)]
    bench: bool,
}

const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n * 60)
}

const ADAPTIVE: KeepAlive = KeepAlive::Adaptive { standard: minutes(10), most: minutes(30) };

fn main() -> Result<()> {
    let options = Options::parse();
    let trace = read(&options)?;
    println!("{} functions, {} calls\n", trace.functions.len(), trace.all_calls());
    println!("Memory as they ask for it\n");
    head();
    let free = |keep_alive| Policy { keep_alive, eviction: Eviction::LongestIdle, memory_budget_mb: None };
    let fixed = replay(&trace, free(KeepAlive::Fixed(minutes(10))));
    row("fixed, 10 min", &fixed, &fixed);
    row("fixed, 20 min", &replay(&trace, free(KeepAlive::Fixed(minutes(20)))), &fixed);
    row("fixed, 60 min", &replay(&trace, free(KeepAlive::Fixed(minutes(60)))), &fixed);
    let adaptive = replay(&trace, free(ADAPTIVE));
    row("adaptive", &adaptive, &fixed);
    let hours = hours::bound(&trace, &adaptive.cold);
    println!(
        "\nBy the hour of the day at the most {} cold calls fewer ({:.1} % of the adaptive policy's), for {:.0} GB·h more ({:.0} %).\n",
        hours.avoidable,
        100.0 * hours.avoidable as f64 / adaptive.cold.len().max(1) as f64,
        hours.idle_mb_s / 1024.0 / 3600.0,
        100.0 * hours.idle_mb_s / adaptive.idle_mb_s.max(1.0),
    );
    let span_s = trace.calls.last().map_or(1, |call| call.at_ms / 1000).max(1);
    let usual_mb = (adaptive.idle_mb_s / span_s as f64) as u64;
    for percent in [100, 50, 25] {
        let budget_mb = (usual_mb * percent / 100).max(2048);
        println!("A budget of {budget_mb} MB, {percent} % of what the adaptive policy has idle in the mean\n");
        head();
        let tight = |keep_alive, eviction| Policy { keep_alive, eviction, memory_budget_mb: Some(budget_mb) };
        let base = replay(&trace, tight(KeepAlive::Fixed(minutes(10)), Eviction::LongestIdle));
        row("fixed, 10 min, longest idle goes", &base, &base);
        row("adaptive, longest idle goes", &replay(&trace, tight(ADAPTIVE, Eviction::LongestIdle)), &base);
        row("adaptive, greedy-dual", &replay(&trace, tight(ADAPTIVE, Eviction::GreedyDual)), &base);
        println!();
    }
    Ok(())
}

fn read(options: &Options) -> Result<Trace> {
    if options.files.is_empty() {
        println!("A synthetic trace, seed {}, {} days:", options.seed, options.days);
        return Ok(synthetic::trace(options.seed, options.functions, options.days));
    }
    let mut reader = azure::Reader::new(options.functions as usize);
    for path in &options.files {
        let file = File::open(path).with_context(|| format!("open {}", path.display()))?;
        reader.read(BufReader::new(file)).with_context(|| format!("read {}", path.display()))?;
    }
    Ok(reader.trace())
}

fn head() {
    println!(
        "| policy | cold calls | third quartile of functions | idle memory | against the first | waited for starts | evicted |"
    );
    println!("|---|---|---|---|---|---|---|");
}

fn row(name: &str, outcome: &Outcome, first: &Outcome) {
    println!(
        "| {name} | {} ({:.3} %) | {:.1} % | {:.0} GB·h | {:.2} | {:.0} s | {} |",
        outcome.cold.len(),
        100.0 * outcome.cold_share(),
        100.0 * outcome.third_quartile(),
        outcome.idle_gb_h(),
        outcome.idle_mb_s / first.idle_mb_s.max(1.0),
        outcome.waited.as_secs_f64(),
        outcome.evicted,
    );
}
