//! A fleet of real processes: controllers and workers with what stands in for AWS between them, and a real Redis.

#[cfg(feature = "aws")]
mod address;
mod calls;
mod chaos;
mod partition;
mod rolling;
