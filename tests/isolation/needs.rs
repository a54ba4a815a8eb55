//! What honest programs need of the kernel works inside every wall, and none of it is counted as an attack.

use std::io::{Cursor, Write};

use serde_json::{Value, json};
use zip::ZipWriter;
use zip::write::SimpleFileOptions;

use crate::support::daemon::Daemon;
use crate::support::multipart::Form;
use crate::support::platform::{inline, merged};

/// Runs a function that answers with the names of what it tried and how that went: everything must be `true`.
async fn all_work(daemon: &Daemon, name: &str) {
    for _ in 0..2 {
        let record = daemon.call(name, &json!({})).await;
        let tried = record["result"].as_object().unwrap_or_else(|| panic!("{record}"));
        assert!(tried.len() > 2 && tried.values().all(|worked| *worked == true), "{name}: {tried:?}");
    }
    let forbidden = daemon.metrics().await.sum("faasd_sandbox_forbidden_calls_total", &[]);
    assert_eq!(forbidden, 0.0, "{name} made forbidden calls");
}

fn roomy(definition: Value) -> Value {
    merged(definition, json!({ "memoryMb": 512, "timeoutMs": 60000 }))
}

const PYTHON: &str = r#"
import asyncio, concurrent.futures, ctypes, getpass, hashlib, mmap, multiprocessing, os, platform, random, select, signal, socket
import sqlite3, ssl, subprocess, sys, tempfile, threading, time, uuid, zoneinfo

def double(n): return n * 2

def threads():
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(double, range(100))) == [n * 2 for n in range(100)]

def processes():
    with concurrent.futures.ProcessPoolExecutor(2, multiprocessing.get_context('fork')) as pool:
        return list(pool.map(double, range(10))) == [n * 2 for n in range(10)]

def spawned():
    return subprocess.run([sys.executable, '-c', 'print(6 * 7)'], capture_output=True, text=True).stdout == '42\n'

def pipeline():
    return subprocess.run('echo one | tr a-z A-Z | cat', shell=True, capture_output=True, text=True).stdout == 'ONE\n'

def queues():
    queue = multiprocessing.get_context('fork').SimpleQueue()
    child = multiprocessing.get_context('fork').Process(target=queue.put, args=('hello',))
    child.start()
    got = queue.get()
    child.join()
    return got == 'hello' and child.exitcode == 0

def database():
    path = tempfile.mktemp(dir='/tmp')
    with sqlite3.connect(path) as db:
        db.execute('pragma journal_mode=wal')
        db.execute('create table t (n)')
        db.executemany('insert into t values (?)', [(n,) for n in range(1000)])
        return db.execute('select sum(n) from t').fetchone() == (499500,)

def tls():
    context = ssl.create_default_context()
    return context.verify_mode == ssl.CERT_REQUIRED and len(ssl.RAND_bytes(16)) == 16

def loops():
    async def main():
        async def serve(reader, writer):
            writer.write(await reader.readline()); await writer.drain(); writer.close()
        server = await asyncio.start_server(serve, '127.0.0.1', 0)
        reader, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
        writer.write(b'line\n')
        line = await reader.readline()
        writer.close(); server.close()
        process = await asyncio.create_subprocess_exec('/bin/echo', 'x', stdout=asyncio.subprocess.PIPE)
        out, _ = await process.communicate()
        return (line, out, await asyncio.to_thread(double, 4)) == (b'line\n', b'x\n', 8)
    return asyncio.run(main())

def local_sockets():
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(tempfile.mktemp(dir='/tmp')); server.listen()
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(server.getsockname())
    return [name for _, name in socket.if_nameindex()] == ['lo'] and bool(socket.getaddrinfo('localhost', 80))

def memory():
    with mmap.mmap(-1, 1 << 20) as shared:
        shared[:3] = b'abc'
        fd = os.memfd_create('x'); os.write(fd, b'y'); os.close(fd)
        return shared[:3] == b'abc'

def signals():
    seen = []
    before = signal.signal(signal.SIGALRM, lambda *_: seen.append(1))
    signal.setitimer(signal.ITIMER_REAL, 0.01); time.sleep(0.05)
    signal.signal(signal.SIGALRM, before)
    return seen == [1]

def identity():
    return (getpass.getuser(), os.cpu_count() >= 1, len(str(uuid.uuid4()))) == ('sandbox', True, 36) and platform.system() == 'Linux'

def handler(event, context):
    tried = {}
    for what in (threads, processes, spawned, pipeline, queues, database, tls, loops, local_sockets, memory, signals, identity):
        try: tried[what.__name__] = what()
        except Exception as error: tried[what.__name__] = repr(error)
    return tried
"#;

#[tokio::test]
async fn python_has_threads_processes_databases_tls_and_loops() {
    let daemon = Daemon::start().await;
    daemon.deploy(roomy(inline("f", "python", PYTHON))).await;
    all_work(&daemon, "f").await;
}

/// The wheel that `scripts/install-test-deps.sh` fetched.
fn numpy() -> Vec<u8> {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/target/test-deps");
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let is_wheel = |path: &std::path::PathBuf| path.extension().is_some_and(|extension| extension == "whl");
    let wheel = entries.map(|entry| entry.path()).find(is_wheel);
    let wheel = wheel.unwrap_or_else(|| panic!("no wheel in {folder}: run scripts/install-test-deps.sh"));
    std::fs::read(wheel).expect("the wheel")
}

#[tokio::test]
async fn numpy_loads_and_computes() {
    let source = r#"
import numpy
def handler(event, context):
    matrix = numpy.arange(90000.0).reshape(300, 300) + numpy.eye(300) * 1e6
    return {
        'product': bool(numpy.allclose(numpy.linalg.inv(matrix) @ matrix, numpy.eye(300), atol=1e-6)),
        'sort': bool((numpy.sort(numpy.random.default_rng(1).random(100000))[1:] >= 0).all()),
        'fourier': bool(numpy.allclose(numpy.fft.ifft(numpy.fft.fft(numpy.ones(64))), 1)),
    }
"#;
    // A wheel is an archive of what belongs on the path.
    let mut archive = ZipWriter::new_append(Cursor::new(numpy())).expect("a wheel is an archive");
    archive.start_file("main.py", SimpleFileOptions::default()).expect("an entry");
    archive.write_all(source.as_bytes()).expect("bytes");
    let archive = archive.finish().expect("an archive").into_inner();
    let daemon = Daemon::start().await;
    let form = Form::default().field("x-function-name", "f").field("x-runtime", "python");
    let form = form.field("x-memory-mb", "512").field("x-timeout-ms", "60000").file("f.zip", &archive);
    form.upload(&daemon).send().await.expect(200);
    all_work(&daemon, "f").await;
}

const NODE: &str = r#"
const { Worker } = require('worker_threads');
const { execFileSync, fork, spawn } = require('child_process');
const crypto = require('crypto'), fs = require('fs'), net = require('net'), os = require('os'), zlib = require('zlib');

const tries = {
  workers: () => new Promise((done, fail) => {
    const worker = new Worker("require('worker_threads').parentPort.postMessage([1, 2, 3].map(n => n * n))", { eval: true });
    worker.once('error', fail);
    worker.once('message', (m) => worker.terminate().then(() => done(String(m) === '1,4,9')));
  }),
  jit: () => {
    const compiled = new Function('n', 'let s = 0; for (let i = 0; i < n; i++) s = (s + i * i) | 0; return s');
    let last; for (let i = 0; i < 200; i++) last = compiled(10000);
    return last === compiled(10000);
  },
  wasm: () => {
    const bytes = Uint8Array.from([0,97,115,109,1,0,0,0,1,7,1,96,2,127,127,1,127,3,2,1,0,7,5,1,1,97,0,0,10,9,1,7,0,32,0,32,1,106,11]);
    return new WebAssembly.Instance(new WebAssembly.Module(bytes)).exports.a(2, 3) === 5;
  },
  children: () => execFileSync('/bin/sh', ['-c', 'echo $((6*7))']).toString() === '42\n',
  streams: () => new Promise((done, fail) => {
    const child = spawn('cat'); let out = '';
    child.on('error', fail); child.stdout.on('data', (d) => out += d); child.on('close', () => done(out === 'x'));
    child.stdin.end('x');
  }),
  hashes: () => crypto.pbkdf2Sync('a', 'b', 1000, 32, 'sha256').length === 32 && crypto.randomBytes(8).length === 8,
  keys: () => crypto.generateKeyPairSync('ec', { namedCurve: 'P-256' }).publicKey.asymmetricKeyType === 'ec',
  files: async () => {
    await fs.promises.writeFile('/tmp/x', 'y'); const watcher = fs.watch('/tmp'); watcher.close();
    return (await fs.promises.readFile('/tmp/x', 'utf8')) === 'y';
  },
  zip: () => zlib.gunzipSync(zlib.gzipSync('text')).toString() === 'text',
  sockets: () => new Promise((done, fail) => {
    const server = net.createServer((s) => s.pipe(s)).listen(0, '127.0.0.1', () => {
      const client = net.connect(server.address().port, '127.0.0.1', () => client.write('ping'));
      client.on('error', fail);
      client.on('data', (d) => { client.end(); server.close(() => done(String(d) === 'ping')); });
    });
  }),
  machine: () => os.cpus().length >= 1 && os.totalmem() > 0 && os.uptime() >= 0 && 'lo' in os.networkInterfaces() && os.userInfo().username === 'sandbox',
};

exports.handler = async () => {
  const tried = {};
  for (const [name, attempt] of Object.entries(tries)) {
    try { tried[name] = await attempt(); } catch (error) { tried[name] = String(error); }
  }
  return tried;
};
"#;

#[tokio::test]
async fn node_has_workers_a_compiler_children_and_crypto() {
    let daemon = Daemon::start().await;
    daemon.deploy(roomy(inline("f", "nodejs", NODE))).await;
    all_work(&daemon, "f").await;
}

const GO: &str = r#"package main

import (
	"encoding/json"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/user"
	"runtime"
	"sync"
	"time"
)

func main() {
	tried := map[string]any{}
	var group sync.WaitGroup
	sum := make(chan int, 1000)
	for i := 0; i < 1000; i++ {
		group.Add(1)
		go func(n int) { defer group.Done(); time.Sleep(time.Millisecond); sum <- n }(i)
	}
	group.Wait()
	tried["goroutines"] = len(sum) == 1000 && runtime.NumCPU() >= 1
	interfaces, err := net.Interfaces()
	tried["interfaces"] = err == nil && len(interfaces) == 1 && interfaces[0].Name == "lo"
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err == nil {
		go func() { peer, _ := listener.Accept(); peer.Write([]byte("hello")); peer.Close() }()
		link, err := net.Dial("tcp", listener.Addr().String())
		buffer := make([]byte, 5)
		if err == nil { _, err = link.Read(buffer) }
		tried["sockets"] = err == nil && string(buffer) == "hello"
	} else { tried["sockets"] = err.Error() }
	out, err := exec.Command("/bin/echo", "x").Output()
	tried["commands"] = err == nil && string(out) == "x\n"
	me, err := user.Current()
	tried["user"] = err == nil && me.Uid == "1000"
	tried["files"] = os.WriteFile("/tmp/x", []byte("y"), 0o600) == nil
	runtime.GC()
	text, _ := json.Marshal(tried)
	fmt.Println(string(text))
}
"#;

#[tokio::test]
async fn go_has_goroutines_interfaces_sockets_and_commands() {
    let daemon = Daemon::start().await;
    daemon.deploy(roomy(inline("f", "go", GO))).await;
    all_work(&daemon, "f").await;
}

const CPP: &str = r#"#include <atomic>
#include <chrono>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <future>
#include <ifaddrs.h>
#include <stdexcept>
#include <thread>
#include <vector>

const char *word(bool worked) { return worked ? "true" : "false"; }

int main() {
    std::atomic<int> sum{0};
    std::vector<std::thread> threads;
    for (int i = 0; i < 16; i++) threads.emplace_back([&sum] { for (int n = 0; n < 1000; n++) sum++; });
    for (auto &thread : threads) thread.join();
    auto later = std::async(std::launch::async, [] { std::this_thread::sleep_for(std::chrono::milliseconds(2)); return 7; });
    bool caught = false;
    try { throw std::runtime_error("x"); } catch (const std::exception &) { caught = true; }
    std::filesystem::create_directories("/tmp/a/b");
    std::ofstream("/tmp/a/b/c") << "text";
    ifaddrs *list = nullptr;
    bool listed = getifaddrs(&list) == 0 && list != nullptr;
    FILE *child = popen("echo x", "r");
    bool opened = child && std::fgetc(child) == 'x';
    if (child) pclose(child);
    std::printf("{\"threads\":%s,\"futures\":%s,\"exceptions\":%s,\"files\":%s,\"interfaces\":%s,\"commands\":%s}\n",
        word(sum == 16000), word(later.get() == 7), word(caught), word(std::filesystem::file_size("/tmp/a/b/c") == 4), word(listed), word(opened));
}
"#;

#[tokio::test]
async fn cpp_has_threads_futures_exceptions_and_files() {
    let daemon = Daemon::start().await;
    daemon.deploy(roomy(inline("f", "cpp", CPP))).await;
    all_work(&daemon, "f").await;
}
