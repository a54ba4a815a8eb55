//! What each runtime promises to the code it runs.

mod environment;
mod examples;
mod native;
mod nodejs;
mod python;
