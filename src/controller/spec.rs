//! What a deployer may ask for, checked against the limits: each refusal names the field, its bounds and what was sent.

use crate::domain::env::Env;
use crate::domain::function::{Runtime, Version, env_name_is_reserved, env_name_is_valid, name_is_valid};
use crate::domain::limits::Limits;

use super::api::params::quoted;
use super::error::ApiError;

const HANDLER_BYTES_MAX: usize = 256;

/// Settings as they were sent; `None`: not named.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    pub runtime: Option<String>,
    pub handler: Option<String>,
    pub memory_mb: Option<u64>,
    pub auto_memory: Option<bool>,
    pub timeout_ms: Option<u64>,
    pub env: Option<Env>,
    pub description: Option<String>,
}

/// Settings that a version can be made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub runtime: Runtime,
    pub handler: Option<String>,
    pub memory_mb: u32,
    pub auto_memory: bool,
    pub timeout_ms: u64,
    pub env: Env,
    pub description: String,
}

impl Spec {
    /// What a version has now, for a change that does not name everything.
    pub fn of(version: &Version) -> Self {
        Self {
            runtime: version.runtime,
            handler: version.handler.clone(),
            memory_mb: version.memory_mb,
            auto_memory: version.auto_memory,
            timeout_ms: version.timeout_ms,
            env: version.env.clone(),
            description: version.description.clone(),
        }
    }
}

impl Settings {
    /// With the defaults for what is not named; a runtime must be.
    pub fn complete(self, limits: &Limits) -> Result<Spec, ApiError> {
        let Some(name) = &self.runtime else {
            return Err(ApiError::invalid(format!("runtime is missing: name one of {}", runtimes())));
        };
        let base = Spec {
            runtime: runtime(name)?,
            handler: None,
            memory_mb: limits.memory_mb_default,
            auto_memory: false,
            timeout_ms: limits.timeout_ms_default,
            env: Env::default(),
            description: String::new(),
        };
        self.over(base, limits)
    }

    /// With what `base` has for what is not named.
    pub fn over(self, base: Spec, limits: &Limits) -> Result<Spec, ApiError> {
        let memory_max = u64::from(limits.memory_mb_max);
        let spec = Spec {
            runtime: self.runtime.as_deref().map_or(Ok(base.runtime), runtime)?,
            handler: self.handler.map_or(base.handler, |handler| (!handler.is_empty()).then_some(handler)),
            memory_mb: match self.memory_mb {
                Some(mb) => within("memoryMb", mb, u64::from(limits.memory_mb_min), memory_max)? as u32,
                None => base.memory_mb,
            },
            auto_memory: self.auto_memory.unwrap_or(base.auto_memory),
            timeout_ms: match self.timeout_ms {
                Some(ms) => within("timeoutMs", ms, limits.timeout_ms_min, limits.timeout_ms_max)?,
                None => base.timeout_ms,
            },
            env: self.env.unwrap_or(base.env),
            description: self.description.unwrap_or(base.description),
        };
        check_handler(spec.handler.as_deref())?;
        check_env(&spec.env, limits.env_bytes)?;
        if spec.description.len() as u64 > limits.description_bytes {
            let (max, sent) = (limits.description_bytes, spec.description.len());
            return Err(ApiError::invalid(format!("description must have at most {max} bytes, not {sent}")));
        }
        Ok(spec)
    }
}

pub fn check_name(name: &str) -> Result<(), ApiError> {
    if name_is_valid(name) {
        return Ok(());
    }
    let rule = "a function's name must be 1 to 64 of A-Z, a-z, 0-9, _ and -, and not shaped like an id";
    Err(ApiError::invalid(format!("{rule}; this is {}", quoted(name))))
}

fn runtime(text: &str) -> Result<Runtime, ApiError> {
    let unknown = || ApiError::invalid(format!("there is no runtime {}; name one of {}", quoted(text), runtimes()));
    Runtime::parse(text).ok_or_else(unknown)
}

fn runtimes() -> String {
    Runtime::ALL.map(Runtime::as_str).join(", ")
}

fn within(field: &str, value: u64, min: u64, max: u64) -> Result<u64, ApiError> {
    if (min..=max).contains(&value) {
        return Ok(value);
    }
    Err(ApiError::invalid(format!("{field} must be from {min} to {max}, not {value}")))
}

fn check_handler(handler: Option<&str>) -> Result<(), ApiError> {
    let Some(handler) = handler else { return Ok(()) };
    let plain = handler.bytes().all(|b| b.is_ascii_graphic()) && !handler.contains("..") && !handler.starts_with('/');
    if plain && handler.len() <= HANDLER_BYTES_MAX {
        return Ok(());
    }
    let sent = quoted(handler);
    Err(ApiError::invalid(format!(
        "handler must look like file.function, in at most {HANDLER_BYTES_MAX} bytes, not {sent}"
    )))
}

/// Values may be secrets: a refusal shows names only.
fn check_env(env: &Env, bytes_max: u64) -> Result<(), ApiError> {
    for (name, value) in env.iter() {
        let shown = quoted(name);
        if !env_name_is_valid(name) {
            let rule = "must begin with a letter or _ and go on with letters, digits and _";
            return Err(ApiError::invalid(format!("env: the name {shown} {rule}")));
        }
        if env_name_is_reserved(name) {
            return Err(ApiError::invalid(format!("env: {shown} is set by the platform; use another name")));
        }
        if value.contains('\0') {
            return Err(ApiError::invalid(format!("env: the value of {shown} must not contain a zero byte")));
        }
    }
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if bytes as u64 > bytes_max {
        let sentence = format!("env must have at most {bytes_max} bytes of names and values together, not {bytes}");
        return Err(ApiError::invalid(sentence));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn python() -> Settings {
        Settings { runtime: Some("python3.12".to_owned()), ..Settings::default() }
    }

    #[track_caller]
    fn refusal(settings: Settings) -> String {
        settings.complete(&Limits::default()).expect_err("these settings are wrong").message
    }

    #[test]
    fn what_is_not_named_is_the_default_or_stays() {
        let limits = Limits::default();
        let spec = python().complete(&limits).unwrap();
        assert_eq!((spec.memory_mb, spec.timeout_ms), (128, 30_000));
        let changed = Settings { memory_mb: Some(256), ..Settings::default() }.over(spec.clone(), &limits).unwrap();
        assert_eq!(changed, Spec { memory_mb: 256, ..spec });
    }

    #[test]
    fn a_refusal_names_field_bounds_and_value() {
        assert_eq!(refusal(Settings { memory_mb: Some(63), ..python() }), "memoryMb must be from 64 to 10240, not 63");
        assert!(refusal(Settings { timeout_ms: Some(u64::MAX), ..python() }).starts_with("timeoutMs must be from 100"));
        assert!(refusal(Settings::default()).contains("python, nodejs, provided, go, cpp"));
        assert!(refusal(Settings { runtime: Some("cobol".into()), ..python() }).contains("\"cobol\""));
        assert!(refusal(Settings { handler: Some("../x".into()), ..python() }).contains("file.function"));
        let env = |name: &str, value: String| Settings { env: Some([(name.to_owned(), value)].into()), ..python() };
        assert!(refusal(env("AWS_REGION", String::new())).contains("set by the platform"));
        assert!(refusal(env("1A", String::new())).contains("must begin"));
        let secret = refusal(env("TOKEN", "s3cret".repeat(1000)));
        assert!(secret.contains("4096") && !secret.contains("s3cret"));
        assert!(check_name("a b").unwrap_err().message.contains("\"a b\""));
    }
}
