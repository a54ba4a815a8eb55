//! One suite per port, run over every adapter of it: what a port's documentation promises is held here and nowhere else.
//!
//! A suite knows its adapter only as a [`world::World`]. A new adapter is one more line in each list of worlds.

/// Runs each test over each world, in a runtime with threads.
macro_rules! contract {
    (worlds: [$($(#[$on:meta])* $module:ident => $world:ty),* $(,)?], tests: $tests:tt) => {
        $(contract!(@world [$(#[$on])*], $module, $world, $tests);)*
    };
    (@world [$(#[$on:meta])*], $module:ident, $world:ty, [$($test:ident),* $(,)?]) => {
        $(#[$on])*
        mod $module {
            use super::*;

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test::<$world>().await;
                }
            )*
        }
    };
}

mod artifacts;
#[cfg(feature = "aws")]
mod aws;
mod bus;
mod clock;
mod dead_letters;
mod embedded;
mod invocations;
mod keys;
mod lessons;
mod listing;
mod queue;
mod registry;
#[cfg(feature = "aws")]
mod s3;
mod samples;
#[cfg(feature = "aws")]
mod sqs;
#[cfg(feature = "aws")]
mod told;
mod world;
