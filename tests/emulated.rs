//! Our servers that stand in for AWS, driven by the SDK as the product drives it. A stand-in that has not passed is not used.

/// Runs the tests of `both` in each place, those of `ours` over our servers alone: there the functional emulator, moto 5.2.1, does
/// otherwise than the service.
macro_rules! emulated {
    (both: [$($both:ident),* $(,)?], ours: [$($ours:ident),* $(,)?]) => {
        emulated!(@place fast, Fast, [$($both,)* $($ours,)*]);
    };
    (@place $module:ident, $place:ident, [$($test:ident,)*]) => {
        mod $module {
            use $crate::emulated::place::{$place, Place};

            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test(&$place::start().await).await;
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
