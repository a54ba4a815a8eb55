//! Builds the library that zygotes preload (`src/sandbox/sys/zygote.rs`), which the executable carries.
#![allow(clippy::disallowed_methods, reason = "a build script is told everything by its environment")]
#![allow(clippy::print_stdout, reason = "and tells what it has to say so")]

use std::env;
use std::path::PathBuf;
use std::process::Command;

/// Its name is in the tables of `core`, but nothing here unwinds.
const NO_UNWINDING: &str = "link-arg=-Wl,--defsym=rust_eh_personality=0";
const FOLDER: &str = "src/sandbox/sys";
const FILES: [&str; 4] = ["zygote.rs", "raw.rs", "order.rs", "walls.rs"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    for file in FILES {
        println!("cargo::rerun-if-changed={FOLDER}/{file}");
    }
    println!("cargo::rerun-if-changed=build.rs");
    let library = PathBuf::from(env::var("OUT_DIR")?).join("zygote.so");
    let (system, processor) = (env::var("CARGO_CFG_TARGET_OS")?, env::var("CARGO_CFG_TARGET_ARCH")?);
    if (system.as_str(), processor.as_str()) != ("linux", "x86_64") {
        // An empty one: there is no zygote then, and interpreters are booted.
        return Ok(std::fs::write(library, "")?);
    }
    let mut compiler = Command::new(env::var("RUSTC")?);
    compiler.args(["--crate-name", "zygote", "--crate-type", "cdylib", "--edition", "2024"]);
    compiler.args(["--target", &env::var("TARGET")?]);
    if let Ok(linker) = env::var("RUSTC_LINKER") {
        compiler.arg(format!("-Clinker={linker}"));
    }
    for option in
        ["opt-level=s", "panic=abort", "codegen-units=1", "strip=symbols", "link-arg=-nostartfiles", NO_UNWINDING]
    {
        compiler.arg(format!("-C{option}"));
    }
    let built = compiler.arg("-o").arg(&library).arg(format!("{FOLDER}/zygote.rs")).status()?;
    if built.success() { Ok(()) } else { Err("the zygote's library does not compile".into()) }
}
