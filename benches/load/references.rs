//! What faasd is read against, in the same run and under the same generator: hyper hello and the bare hop, in this process;
//! functions-framework and workerd where `scripts/install-bench-deps.sh` has put them, said to be absent where not.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::bare::BareHop;
use super::harness::control::{Control, run_request};
use super::hello;
use super::round::Round;

const CONNECTIONS: [usize; 2] = [1, 64];
const START_LIMIT: Duration = Duration::from_secs(20);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/load/references");
const INSTALLED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/target/bench-deps");
/// Two processes with threads were best on two processors.
const GUNICORN: [&str; 9] = [
    "--workers=2",
    "--worker-class=gthread",
    "--threads=32",
    "--keep-alive=60",
    "--log-level=error",
    "--chdir",
    FILES,
    "functions_framework:create_app('echo', 'main.py')",
    "--bind",
];

/// What the bare hop completed a second in this round, by language and connections.
pub struct BareRates(Vec<(&'static str, usize, f64)>);

impl BareRates {
    pub fn get(&self, language: &str, connections: usize) -> Option<f64> {
        self.0.iter().find(|(of, with, _)| *of == language && *with == connections).map(|(.., rate)| *rate)
    }
}

pub fn measure(round: &Round<'_>) -> io::Result<BareRates> {
    let mut rates = BareRates(Vec::new());
    if wanted(round, "hyper hello").next().is_some() {
        let server = hello::start()?;
        load(round, "hyper hello", server.address)?;
    }
    for (case, language) in [("bare hop, python", "python"), ("bare hop, native", "native")] {
        if wanted(round, case).next().is_some() {
            let bare = BareHop::start(language)?;
            let measured = load(round, case, bare.server.address)?;
            rates.0.extend(measured.into_iter().map(|(connections, rate)| (language, connections, rate)));
        }
    }
    for (case, start) in [
        ("functions-framework", External::functions_framework as fn() -> io::Result<External>),
        ("workerd", External::workerd),
    ] {
        if wanted(round, case).next().is_some() {
            match start() {
                Ok(external) => drop(load(round, case, external.address)?),
                Err(error) => round.rows.absent(case, &error.to_string())?,
            }
        }
    }
    Ok(rates)
}

fn wanted<'a>(round: &'a Round<'_>, case: &'a str) -> impl Iterator<Item = (usize, String)> + 'a {
    let named =
        CONNECTIONS.map(|count| (count, format!("{case}, {count} connection{}", if count > 1 { "s" } else { "" })));
    named.into_iter().filter(|(_, name)| round.wants(name))
}

fn load(round: &Round<'_>, case: &str, address: SocketAddr) -> io::Result<Vec<(usize, f64)>> {
    let mut rates = Vec::new();
    for (connections, name) in wanted(round, case) {
        let tally = round.closed(address, &run_request("", "echo", ""), connections)?;
        round.tell_rate(&name, &tally)?;
        rates.push((connections, tally.per_second()));
    }
    Ok(rates)
}

/// A server that is a program of its own.
struct External {
    address: SocketAddr,
    child: Child,
}

impl External {
    fn functions_framework() -> io::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(installed("venv/bin/gunicorn")?);
        Self::start(command.args(GUNICORN).arg(address.to_string()), address)
    }

    fn workerd() -> io::Result<Self> {
        let address = free_address()?;
        let mut command = Command::new(installed("workerd/node_modules/@cloudflare/workerd-linux-64/bin/workerd")?);
        let config = Path::new(FILES).join("workerd.capnp");
        Self::start(command.arg("serve").arg(config).arg(format!("--socket-addr=http={address}")), address)
    }

    fn start(command: &mut Command, address: SocketAddr) -> io::Result<Self> {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let mut external = Self { address, child };
        let since = Instant::now();
        while !answers(address) {
            if external.child.try_wait()?.is_some() || since.elapsed() > START_LIMIT {
                return Err(io::Error::other("it did not start"));
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(external)
    }
}

impl Drop for External {
    /// In order first, so that its workers go too.
    fn drop(&mut self) {
        let _ = kill(Pid::from_raw(self.child.id() as i32), Signal::SIGTERM);
        let since = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && since.elapsed() < STOP_LIMIT {
            std::thread::sleep(Duration::from_millis(20));
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn answers(address: SocketAddr) -> bool {
    let call = || Control::connect(address, "")?.exchange(&run_request("", "echo", ""));
    call().is_ok_and(|(status, _)| status == 200)
}

fn installed(path: &str) -> io::Result<PathBuf> {
    let path = Path::new(INSTALLED).join(path);
    let missing = || io::Error::other("not installed: scripts/install-bench-deps.sh does it");
    path.exists().then_some(path).ok_or_else(missing)
}

/// Of a port that was free a moment ago: these programs don't tell which one they took.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind(("127.0.0.1", 0))?.local_addr()
}
