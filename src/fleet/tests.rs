//! Controllers and workers over loopback: real connections, workers that do what their payload says.
