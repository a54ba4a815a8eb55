//! That nothing accepted is lost: under load, in a crash, at shutdown, when functions fail.

mod crash;
mod disk;
mod overload;
mod retries;
mod volume;
