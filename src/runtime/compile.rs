//! Compiling at deploy: the compiler's arguments. They run in a build sandbox, by the native runner (`runner/build.rs`), in a
//! copy of the sources; the program goes to `/output/main`.

use std::path::Path;

use crate::domain::function::Runtime;

/// What a build must leave in `/output`.
pub const PROGRAM: &str = "main";

/// C++: every `.cpp` file at the package's top. Static, so that the program needs nothing of the machine it runs on.
const CPP: &str = r#"exec "$0" -O2 -std=c++20 -Wall -pthread -static -o "$OUTPUT_DIR/main" ./*.cpp"#;

/// Go: the package at the top, without network or C. A lone file gets the `go.mod` that the compiler wants.
const GO: &str = r#"[ -e go.mod ] || "$0" mod init function >/dev/null 2>&1
exec "$0" build -trimpath -ldflags=-s -o "$OUTPUT_DIR/main" ."#;

/// The command line that builds a package of `runtime` with this compiler; empty for runtimes that are not compiled.
pub fn arguments(runtime: Runtime, compiler: &Path) -> Vec<String> {
    let script = match runtime {
        Runtime::Cpp => CPP,
        Runtime::Go => GO,
        Runtime::Python | Runtime::Nodejs | Runtime::Provided => return Vec::new(),
    };
    ["/bin/sh", "-c", script, &compiler.display().to_string()].map(str::to_owned).to_vec()
}

/// The environment that builds run in, beside `PATH`, `HOME` and `TMPDIR`.
pub const ENVIRONMENT: [(&str, &str); 6] = [
    ("CGO_ENABLED", "0"),
    ("GOPROXY", "off"),
    ("GOSUMDB", "off"),
    ("GOTOOLCHAIN", "local"),
    ("GOTELEMETRY", "off"),
    ("GOCACHE", "/tmp/go-cache"),
];

/// What to tell a user whose package needs a compiler that is not here.
pub fn no_compiler(runtime: Runtime) -> String {
    let (name, package) = match runtime {
        Runtime::Go => ("Go", "golang-go"),
        _ => ("C++", "g++"),
    };
    format!(
        "no {name} compiler is installed where functions are built; install one (`apt-get install {package}`), or deploy a \
         package with a prebuilt, statically linked `main`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn compiled_runtimes_have_a_command_line() {
        let go = arguments(Runtime::Go, Path::new("/usr/lib/go-1.19/bin/go"));
        assert_eq!(go.first().map(String::as_str), Some("/bin/sh"));
        assert_eq!(go.last().map(String::as_str), Some("/usr/lib/go-1.19/bin/go"));
        assert!(arguments(Runtime::Python, Path::new("/x")).is_empty());
        assert!(no_compiler(Runtime::Cpp).contains("apt-get install g++"));
    }
}
