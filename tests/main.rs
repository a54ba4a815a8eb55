//! The one integration test binary. Each folder is one kind of proof: what the API promises, that nothing accepted is lost, that
//! nothing gets out of a sandbox, what each runtime does. They drive a real daemon over HTTP, with real sandboxes, as root.

mod support {
    pub mod archive;
    pub mod client;
    pub mod daemon;
    pub mod footprint;
    pub mod multipart;
    pub mod platform;
    pub mod slots;
    pub mod sse;
}

mod api {
    mod auth;
    mod bad_archives;
    mod bad_requests;
    mod connections;
    mod invocations;
    mod lifecycle;
    mod logs;
    mod system;
    mod upload;
}

mod delivery {
    mod crash;
    mod retries;
    mod volume;
}

mod isolation {
    mod failures;
    mod usage;
    mod walls;
}

mod runtimes {
    mod examples;
    mod native;
    mod nodejs;
    mod python;
}
