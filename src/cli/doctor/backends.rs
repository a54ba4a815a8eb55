//! What a daemon stands on: its data directory, the disk below it, and whether one answers.

use std::path::{Path, PathBuf};

use http::StatusCode;
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access};

use super::Check;
use crate::cli::client::{Call, Client, SHORT};
use crate::cli::{ClientFlags, Failure};
use crate::config::Config;

/// Less than this fills up with a few uploads.
const FREE_BYTES_MIN: u64 = 1024 * 1024 * 1024;

/// Whether the data directory, or the nearest folder above it that is there, can be written and has room.
pub(super) fn storage(data_dir: Option<&Path>) -> Vec<Check> {
    let wanted = data_dir.map_or_else(|| Config::default().data_dir, PathBuf::from);
    let wanted = std::path::absolute(&wanted).unwrap_or(wanted);
    let there = wanted.ancestors().find(|folder| folder.exists()).unwrap_or(Path::new("/"));
    let place = if there == wanted { "" } else { ", to be made at the first start" };
    let writable = match access(there, AccessFlags::W_OK) {
        Ok(()) => Check::good("data directory", format!("{}{place}", wanted.display())),
        Err(error) => Check::missing(
            "data directory",
            format!("{} can't be written: {}", there.display(), error.desc()),
            "run as root, or choose another with --data-dir",
        ),
    };
    vec![writable, free(there)]
}

fn free(folder: &Path) -> Check {
    let stat = match statvfs(folder) {
        Ok(stat) => stat,
        Err(error) => {
            let detail = format!("{} can't be asked: {}", folder.display(), error.desc());
            return Check::weak("free disk", detail, "look at the mount by hand");
        }
    };
    let bytes = stat.blocks_available().saturating_mul(stat.fragment_size());
    let detail = format!("{:.1} GiB below {}", bytes as f64 / (1024.0 * 1024.0 * 1024.0), folder.display());
    if bytes >= FREE_BYTES_MIN {
        return Check::good("free disk", detail);
    }
    Check::weak("free disk", detail, "make room, or choose a data directory on a larger disk")
}

/// Whether a daemon answers, and whether it is ready.
pub(super) async fn daemon(flags: &ClientFlags) -> Result<Check, Failure> {
    let client = Client::new(flags)?;
    let answer = match client.send(Call::new("GET", "/ready")).await {
        Ok(answer) => answer,
        Err(failure) => {
            return Ok(Check::weak(
                "daemon",
                failure.to_string(),
                "start one with `faasd` or `make run`, or set FAASD_URL",
            ));
        }
    };
    let (status, body) = client.collect(answer, SHORT).await?;
    let detail = String::from_utf8_lossy(&body).trim().to_owned();
    Ok(match status {
        StatusCode::OK if client.speaks_in_clear() => Check::weak(
            "daemon",
            format!("ready at {}, to which the key travels in clear", client.url()),
            "set tls.certificate and tls.key there, and begin FAASD_URL with https://",
        ),
        StatusCode::OK => Check::good("daemon", format!("ready at {}", client.url())),
        _ => Check::missing(
            "daemon",
            format!("not ready at {}: {detail}", client.url()),
            "see its log for what it lacks",
        ),
    })
}
