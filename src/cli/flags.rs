//! The flags that commands share.

use std::path::PathBuf;

use clap::Args;
use clap::builder::PossibleValuesParser;

use crate::config::load::FlagValue;

/// The daemon's flags: the topmost layer of the configuration.
#[derive(Clone, Debug, Default, Args)]
pub struct DaemonFlags {
    /// Configuration file; FAASD_CONFIG names one as well
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What this process does
    #[arg(long, value_parser = PossibleValuesParser::new(["controller", "worker", "both"]))]
    role: Option<String>,
    /// Address and port of the HTTP API
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<String>,
    /// Where all data lies
    // An id of its own: clap hands a command's global flags to its parents by id, and the client's is a path.
    #[arg(id = "daemon_data_dir", long = "data-dir", value_name = "DIR")]
    data_dir: Option<String>,
    /// What to do where full isolation can't be had: refuse, or start with the strongest there is
    #[arg(long, value_parser = PossibleValuesParser::new(["strict", "auto"]))]
    isolation: Option<String>,
    /// A level or a filter: info, debug, info,faasd::worker=debug
    #[arg(long, value_name = "LEVEL")]
    log_level: Option<String>,
    /// One JSON object a line rather than text
    #[arg(long)]
    log_json: bool,
    /// Any configuration key: --set pool.keep_alive_s=60
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = assignment)]
    set: Vec<(String, String)>,
}

impl DaemonFlags {
    /// What was given, as configuration values. `--set` comes first, so that a flag of its own wins.
    pub fn values(&self) -> Vec<FlagValue> {
        let value = |flag: &str, key: &str, text: &str| FlagValue {
            flag: flag.to_owned(),
            key: key.to_owned(),
            text: text.to_owned(),
        };
        let mut values: Vec<FlagValue> = self.set.iter().map(|(key, text)| value("--set", key, text)).collect();
        for (flag, key, text) in [
            ("--role", "role", &self.role),
            ("--listen", "listen", &self.listen),
            ("--data-dir", "data_dir", &self.data_dir),
            ("--isolation", "isolation", &self.isolation),
            ("--log-level", "log.level", &self.log_level),
        ] {
            values.extend(text.as_deref().map(|text| value(flag, key, text)));
        }
        if self.log_json {
            values.push(value("--log-json", "log.json", "true"));
        }
        values
    }
}

/// Where the daemon is, who asks, and how the answer is to look.
#[derive(Clone, Debug, Args)]
pub struct ClientFlags {
    /// Where the daemon answers
    #[arg(long, env = "FAASD_URL", default_value = "http://127.0.0.1:8080", global = true)]
    pub url: String,
    /// The API key; without it the admin key in the data directory is used
    #[arg(long, env = "FAASD_API_KEY", hide_env_values = true, global = true)]
    pub api_key: Option<String>,
    /// The daemon's data directory, for its admin key
    #[arg(long, env = "FAASD_DATA_DIR", value_name = "DIR", global = true)]
    pub data_dir: Option<PathBuf>,
    /// PEM file of an authority to trust beside those of this machine, for https:// URLs
    #[arg(long, env = "FAASD_CA_FILE", value_name = "FILE", global = true)]
    pub ca_file: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub json: bool,
}

/// Splits `KEY=VALUE` at its first `=`.
///
/// # Errors
/// A sentence for the user, where there is no `=` or nothing before it.
pub(super) fn assignment(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err("write it as KEY=VALUE".to_owned()),
    }
}
