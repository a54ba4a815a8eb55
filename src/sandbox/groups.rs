//! The control groups of one daemon: as much of them as its isolation demands, and nobody else's.

use super::cgroup::{CLAIM_WAIT, Claim, Controller, Device, IoLimits, Layout};
use crate::config::{Config, Isolation};
use crate::ports::sandbox::SandboxError;

/// Groups that an earlier run's launcher sweeps away while they are being claimed are made again so often.
const CLAIM_TRIES: usize = 5;

/// The group layout, or as much of it as `isolation` demands.
fn prepare_groups(config: &Config, instance: &str, warnings: &mut Vec<String>) -> Result<Layout, SandboxError> {
    let prepared = Layout::prepare(&config.sandbox.cgroup_prefix, instance);
    let (layout, problem) = match prepared {
        Ok(layout) => {
            let missing = layout.missing();
            let problem = (!missing.is_empty())
                .then(|| format!("this machine offers no cgroup controller for {}", missing.join(", ")));
            (layout, problem)
        }
        Err(error) => (Layout::default(), Some(format!("control groups can't be made ({error})"))),
    };
    match problem {
        Some(problem) if config.isolation == Isolation::Strict => {
            // What was made of it serves nobody.
            layout.remove_empty();
            Err(SandboxError::Unsupported(format!(
                "{problem}; mount the cgroup hierarchies writable, or set `isolation = \"auto\"` to start without these limits"
            )))
        }
        Some(problem) => {
            warnings
                .push(format!("{problem}: functions run without these limits; `faasd doctor` shows how to mend it"));
            Ok(layout)
        }
        None => Ok(layout),
    }
}

/// The group layout, claimed: no other daemon has these groups, and no sweep of an earlier run goes on in them.
pub fn claim_groups(
    config: &Config,
    instance: &str,
    warnings: &mut Vec<String>,
) -> Result<(Layout, Claim), SandboxError> {
    let failed = |cause: String| SandboxError::Failed { step: "claim the control groups", cause };
    for _ in 0..CLAIM_TRIES {
        let layout = prepare_groups(config, instance, warnings)?;
        match Claim::take(&layout.parents(), CLAIM_WAIT) {
            Ok(Some(claim)) => return Ok((layout, claim)),
            // Swept away meanwhile by the launcher of an earlier run.
            Ok(None) => warnings.clear(),
            Err(error) if error.kind() == std::io::ErrorKind::AddrInUse => {
                return Err(failed("another faasd runs on this data directory; end it first".to_owned()));
            }
            Err(error) => return Err(failed(error.to_string())),
        }
    }
    Err(failed("they vanish as soon as they are made; does something else remove them?".to_owned()))
}

/// The ceilings on I/O that the configuration asks for, where there is a device to set them on.
pub fn io_limits(config: &Config, layout: &Layout, warnings: &mut Vec<String>) -> Option<IoLimits> {
    let sandbox = &config.sandbox;
    let (reads, writes) = (sandbox.io_read_bytes_per_s, sandbox.io_write_bytes_per_s);
    if reads == 0 && writes == 0 && sandbox.io_operations_per_s == 0 {
        return None;
    }
    let device = Device::holding(&config.data_dir).filter(|_| layout.has(Controller::Io));
    if device.is_none() {
        warnings.push(
            "`sandbox.io_…` can't be kept: there is no cgroup controller for I/O, or the data directory is on no block device of its own"
                .to_owned(),
        );
    }
    Some(IoLimits {
        device: device?,
        read_bytes_per_s: reads,
        write_bytes_per_s: writes,
        operations_per_s: sandbox.io_operations_per_s,
    })
}
