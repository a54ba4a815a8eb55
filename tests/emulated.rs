//! Our servers that stand in for AWS, driven by the SDK as the product drives it, each step the same over the functional emulator:
//! a stand-in that has not passed the suite is not used.

/// Runs each test over each place.
macro_rules! emulated {
    (places: [$($module:ident => $place:ty),* $(,)?], tests: $tests:tt) => {
        $(emulated!(@place $module, $place, $tests);)*
    };
    (@place $module:ident, $place:ty, [$($test:ident),* $(,)?]) => {
        mod $module {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(&<$place as $crate::emulated::place::Place>::start().await).await;
                }
            )*
        }
    };
}

mod batches;
mod expressions;
mod faults;
mod indexes;
mod items;
mod objects;
mod place;
mod queries;
mod tables;
mod transactions;
mod values;
