//! A sandbox made on trial, with the driver that the daemon uses and the configuration that the environment names.

use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use crate::cli::Environment;
use crate::config::{Config, Isolation, load};
use crate::domain::function::Runtime;
use crate::ports::sandbox::SandboxError;
use crate::sandbox::LinuxSandboxes;

use super::Check;

const NAME: &str = "sandbox";
/// How long an interpreter may take to boot.
const ZYGOTE_TIMEOUT: Duration = Duration::from_secs(6);

/// Whether a sandbox can be made here; else the driver's own reason.
pub(super) async fn sandbox(environment: Environment) -> Check {
    let path =
        environment.iter().find(|(name, _)| name == "PATH").map(|(_, value)| value.to_string_lossy().into_owned());
    let config = match load::load(None, environment, &[]) {
        Ok(config) => config,
        Err(problems) => {
            let detail = format!("not tried, the configuration is wrong: {}", problems.to_string().replace('\n', "; "));
            return Check::missing(NAME, detail, "see `faasd config check`");
        }
    };
    let folder = PathBuf::from(format!("/tmp/faasd-doctor-{}", std::process::id()));
    if let Err(error) = std::fs::DirBuilder::new().mode(0o700).create(&folder) {
        return Check::missing(
            NAME,
            format!("not tried, {} can't be made: {error}", folder.display()),
            "make room in /tmp",
        );
    }
    let check = judge(&trial(config, folder.clone()), &path.unwrap_or_default()).await;
    // What is left of it would only be an empty directory.
    let _ = std::fs::remove_dir_all(&folder);
    check
}

/// The configuration for a trial beside a daemon that may be running: other files, and the last of the host ids.
fn trial(mut config: Config, data_dir: PathBuf) -> Config {
    config.data_dir = data_dir;
    config.sandbox.uid_first += config.sandbox.uid_count.saturating_sub(2);
    config.sandbox.uid_count = 2;
    config
}

async fn judge(config: &Config, path: &str) -> Check {
    let strict = match open(config, Isolation::Strict, path).await {
        Ok((_, python)) => {
            return Check::good(NAME, format!("made one and ended it: full isolation works here; {python}"));
        }
        Err(error) => error,
    };
    match open(config, Isolation::Auto, path).await {
        Ok((warnings, _)) => Check::weak(
            NAME,
            format!("only a weaker one: {}", warnings.join("; ")),
            "mend what the checks above name, or start with isolation = \"auto\"",
        ),
        Err(_) => Check::missing(NAME, strict.to_string(), "mend what the checks above name; run as root"),
    }
}

/// Starts a launcher, has it make one sandbox, and ends both. What the driver warns of, and where Python comes from.
async fn open(config: &Config, isolation: Isolation, path: &str) -> Result<(Vec<String>, String), SandboxError> {
    let zygote = config.sandbox.zygote;
    let config = Arc::new(Config { isolation, ..config.clone() });
    let executable = std::fs::read_link("/proc/self/exe").unwrap_or_else(|_| Path::new("/proc/self/exe").to_owned());
    let instance = format!("doctor-{}", std::process::id());
    let sandboxes = LinuxSandboxes::open(config, &instance, &executable, path).await?;
    let warnings = sandboxes.warnings().to_vec();
    let python = match (sandboxes.runtimes().contains(&Runtime::Python), zygote) {
        (false, _) => "without Python".to_owned(),
        (true, false) => "each Python boots, as `sandbox.zygote` says".to_owned(),
        (true, true) => match tokio::time::timeout(ZYGOTE_TIMEOUT, sandboxes.zygotes().settled()).await {
            Ok(Ok(())) => "Python is forked from a zygote".to_owned(),
            Ok(Err(cause)) => format!("each Python boots, which is slower: its zygote {cause}"),
            Err(_) => "each Python boots, which is slower: there is no zygote here".to_owned(),
        },
    };
    sandboxes.close().await;
    Ok((warnings, python))
}
