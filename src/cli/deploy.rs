//! `faasd deploy`: from a folder, a file or an archive to a published version.

use std::collections::BTreeMap;
use std::path::PathBuf;

use clap::Args;
use serde_json::Value;

use super::client::{Call, Client, LONG};
use super::flags::assignment;
use super::package::{self, Package};
use super::table::{cell, pretty};
use super::upload::Upload;
use super::{ClientFlags, Failure};
use crate::domain::function::{Runtime, name_is_valid};
use crate::domain::limits::Limits;

#[derive(Debug, Args)]
pub struct Arguments {
    /// A folder, a source file or a zip archive
    path: PathBuf,
    /// The function's name; without it that in function.toml, else that of the folder or file
    #[arg(long)]
    name: Option<String>,
    /// python, nodejs, provided, go or cpp; without it, told by the files
    #[arg(long)]
    runtime: Option<String>,
    /// file.function, where the runtime's convention does not do
    #[arg(long)]
    handler: Option<String>,
    /// Memory in MB
    #[arg(long, value_name = "MB")]
    memory: Option<u32>,
    /// Resize it by itself, by what its calls use, an hour or more apart; false: leave its memory alone
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    auto_memory: Option<bool>,
    /// Timeout in milliseconds
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
    /// An environment variable; may be repeated
    #[arg(long = "env", value_name = "KEY=VALUE", value_parser = assignment)]
    env: Vec<(String, String)>,
    /// A sentence on what it does
    #[arg(long)]
    description: Option<String>,
    /// Send it though it is larger than the default limits
    #[arg(long)]
    force: bool,
    #[command(flatten)]
    pub client: ClientFlags,
}

/// Packs, uploads, and tells the version.
///
/// # Errors
/// What can't be packed, and what the daemon refuses.
pub async fn run(arguments: Arguments) -> Result<(), Failure> {
    let client = Client::new(&arguments.client)?;
    let package = package::read(&arguments.path, &Limits::default(), arguments.force)?;
    let fields = fields(&arguments, &package)?;
    let (body, content_type) = Upload::new(&fields, &package.file_name, package.bytes);
    let headers = vec![("content-type", content_type)];
    let answer =
        client.fetch(Call { method: "POST", path: "/upload".to_owned(), headers, body, timeout: LONG }).await?;
    if arguments.client.json {
        println!("{}", pretty(&answer));
    } else {
        println!("{}", told(&answer));
    }
    Ok(())
}

fn told(answer: &Value) -> String {
    format!("deployed {} version {} ({})", cell(&answer["name"]), cell(&answer["version"]), cell(&answer["functionId"]))
}

/// The form's fields: flags over `function.toml` over what the files tell.
fn fields(arguments: &Arguments, package: &Package) -> Result<Vec<(&'static str, String)>, Failure> {
    let manifest = &package.manifest;
    let name = arguments.name.clone().or_else(|| manifest.name.clone()).unwrap_or_else(|| plain(&package.stem));
    if !name_is_valid(&name) {
        return Err(Failure::Usage(format!(
            "`{name}` can't name a function: 1 to 64 letters, digits, `_` or `-`, and no UUID; give one with --name"
        )));
    }
    let runtime = runtime(arguments.runtime.as_ref().or(manifest.runtime.as_ref()), package)?;
    let mut env: BTreeMap<String, String> = manifest.env.clone();
    env.extend(arguments.env.iter().cloned());
    let mut fields = vec![("x-function-name", name), ("x-runtime", runtime.to_string())];
    for (field, value) in [
        ("handler", arguments.handler.clone().or_else(|| manifest.handler.clone())),
        ("x-memory-mb", arguments.memory.or(manifest.memory_mb).map(|mb| mb.to_string())),
        ("autoMemory", arguments.auto_memory.or(manifest.auto_memory).map(|auto| auto.to_string())),
        ("x-timeout-ms", arguments.timeout.or(manifest.timeout_ms).map(|ms| ms.to_string())),
        ("description", arguments.description.clone().or_else(|| manifest.description.clone())),
    ] {
        fields.extend(value.map(|value| (field, value)));
    }
    if !env.is_empty() {
        // Strings alone can always be written as JSON.
        fields.push(("envVars", serde_json::to_string(&env).unwrap_or_default()));
    }
    Ok(fields)
}

fn runtime(given: Option<&String>, package: &Package) -> Result<Runtime, Failure> {
    if let Some(text) = given {
        return Runtime::parse(text).ok_or_else(|| {
            Failure::Usage(format!("there is no runtime `{text}`: choose python, nodejs, provided, go or cpp"))
        });
    }
    match package.runtimes.as_slice() {
        [runtime] => Ok(*runtime),
        [] => Err(Failure::Usage(
            "the runtime can't be told from the files (main.py, index.js, bootstrap, main.go or main.cpp): say it with --runtime"
                .to_owned(),
        )),
        several => {
            let several: Vec<&str> = several.iter().map(|runtime| runtime.as_str()).collect();
            Err(Failure::Usage(format!("the files tell {}: say which with --runtime", several.join(" and "))))
        }
    }
}

/// A folder's name with what names can't hold taken for `-`.
fn plain(stem: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() || c == '_' { c } else { '-' };
    stem.chars().map(allowed).take(64).collect::<String>().trim_matches('-').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        arguments: Arguments,
    }

    fn line(words: &[&str]) -> Arguments {
        Line::parse_from(["deploy", "."].iter().chain(words)).arguments
    }

    fn package(manifest: &str, runtimes: &[Runtime]) -> Package {
        Package {
            file_name: "x.zip".to_owned(),
            bytes: Vec::new(),
            manifest: toml::from_str(manifest).unwrap(),
            runtimes: runtimes.to_vec(),
            stem: "my fine.function".to_owned(),
        }
    }

    #[test]
    fn flags_win_over_the_manifest_and_it_over_the_files() {
        let manifest =
            "name = \"m\"\nruntime = \"node\"\nmemory_mb = 64\ntimeout_ms = 5\n[env]\nA = \"1\"\nB = \"2\"\n";
        let arguments = line(&["--memory", "256", "--auto-memory", "--env", "B=3=4", "--handler", "a.b"]);
        let fields = fields(&arguments, &package(manifest, &[Runtime::Python])).unwrap();
        assert_eq!(
            fields,
            [
                ("x-function-name", "m".to_owned()),
                ("x-runtime", "nodejs".to_owned()),
                ("handler", "a.b".to_owned()),
                ("x-memory-mb", "256".to_owned()),
                ("autoMemory", "true".to_owned()),
                ("x-timeout-ms", "5".to_owned()),
                ("envVars", r#"{"A":"1","B":"3=4"}"#.to_owned()),
            ]
        );
    }

    #[test]
    fn without_either_the_files_tell() {
        let told = fields(&line(&[]), &package("", &[Runtime::Go])).unwrap();
        assert_eq!(told, [("x-function-name", "my-fine-function".to_owned()), ("x-runtime", "go".to_owned())]);
        assert!(fields(&line(&[]), &package("", &[])).unwrap_err().to_string().contains("--runtime"));
        let both = fields(&line(&[]), &package("", &[Runtime::Python, Runtime::Go])).unwrap_err().to_string();
        assert!(both.contains("python and go"), "{both}");
        assert!(fields(&line(&["--runtime", "ruby"]), &package("", &[])).is_err());
        assert!(fields(&line(&["--name", "a b"]), &package("", &[Runtime::Go])).is_err());
    }
}
