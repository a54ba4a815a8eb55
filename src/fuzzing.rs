//! What hostile bytes reach first, each as one function of any bytes that panics where a promise is broken: not only "no crash", but
//! bounds kept, round trips whole, nothing written outside. `fuzz/` feeds them by libFuzzer; the unit test below feeds them what
//! `fuzz/corpus` keeps, which is where an input that once broke one stays.

mod archive;
mod configuration;
mod frames;

pub use crate::controller::api::upload::fuzzed::multipart;
pub use crate::runtime::runner::fuzzed::runtime_api;
pub use archive::archive;
pub use configuration::configuration;
pub use frames::frames;

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Every kept input of `target`, and each with its end cut off.
    fn feed(target: &str, with: impl Fn(&[u8])) {
        let kept = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
        let mut count = 0;
        for entry in std::fs::read_dir(&kept).unwrap() {
            let bytes = std::fs::read(entry.unwrap().path()).unwrap();
            with(&bytes);
            with(&bytes[..bytes.len() / 2]);
            with(&bytes[..bytes.len().saturating_sub(1)]);
            count += 1;
        }
        assert!(count >= 3, "{count} inputs in {}", kept.display());
        with(b"");
    }

    #[test]
    fn kept_inputs_of_frames_hold() {
        feed("frames", frames);
    }

    #[test]
    fn kept_inputs_of_the_runtime_api_hold() {
        feed("runtime_api", runtime_api);
    }

    #[test]
    fn kept_inputs_of_archives_hold() {
        let dir = tempfile::tempdir().unwrap();
        feed("archive", |bytes| archive(bytes, dir.path()));
    }

    #[test]
    fn kept_inputs_of_multipart_hold() {
        feed("multipart", multipart);
    }

    #[test]
    fn kept_inputs_of_the_configuration_hold() {
        feed("configuration", configuration);
    }
}
