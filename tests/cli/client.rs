//! The client commands against a daemon that gives canned answers: what is asked, what is printed, how it exits.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::mpsc;
use std::time::Duration;

use super::{faasd, stderr, stdout};

/// A request as it came.
struct Seen {
    /// Method and path.
    line: String,
    head: String,
    body: String,
}

/// Answers as many requests as there are answers, one a connection, and hands over what it saw.
struct Canned {
    url: String,
    seen: mpsc::Receiver<Seen>,
}

impl Canned {
    /// Each answer is a status line's end (`200 OK`), a content type and a body.
    fn new(answers: &[(&'static str, &'static str, &'static str)]) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let url = format!("http://{}", listener.local_addr().expect("an address"));
        let (sender, seen) = mpsc::channel();
        let answers = answers.to_vec();
        std::thread::spawn(move || {
            for answer in answers {
                let (mut stream, _) = listener.accept().expect("a connection");
                let (seen, answer) = converse(&stream, answer);
                // Noted before it is answered, so that it is there when the client has ended.
                sender.send(seen).expect("the test listens");
                stream.write_all(answer.as_bytes()).expect("the answer is taken");
            }
        });
        Self { url, seen }
    }

    fn run(self, arguments: &[&str]) -> (std::process::Output, Vec<Seen>) {
        let output = faasd(arguments, &[("FAASD_URL", &self.url), ("FAASD_API_KEY", "secret-key")]);
        // The server's thread ends with the test process if it was asked less than it expected; the test then misses a request.
        (output, self.seen.try_iter().collect())
    }
}

/// Reads a request, and makes the answer to it.
fn converse(stream: &TcpStream, (status, kind, body): (&str, &str, &str)) -> (Seen, String) {
    stream.set_read_timeout(Some(Duration::from_secs(10))).expect("a timeout");
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line).expect("a request line");
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") && head != "\r\n" {
        reader.read_line(&mut head).expect("a header");
    }
    let lower = head.to_ascii_lowercase();
    let length = lower.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
    let mut bytes = vec![0; length];
    reader.read_exact(&mut bytes).expect("the body");
    let answer = format!("HTTP/1.1 {status}\r\ncontent-type: {kind}\r\ncontent-length: {}\r\n\r\n{body}", body.len());
    let line = line.trim_end().trim_end_matches(" HTTP/1.1").to_owned();
    let seen = Seen { line, head: lower, body: String::from_utf8_lossy(&bytes).into_owned() };
    (seen, answer)
}

const JSON: &str = "application/json";
const SUCCESS: &str =
    r#"{"status":"SUCCESS","requestId":"r1","result":{"n":3},"stdout":"printed\n","stderr":"","durationMs":0.5}"#;
const FAILED: &str = r#"{"status":"FAILED","requestId":"r2","result":null,"stdout":"","stderr":"",
    "errorType":"FunctionError","errorMessage":"ValueError: no","stackTrace":["main.py:2"]}"#;

#[test]
fn invoke_prints_the_result_alone_on_stdout() {
    let (output, seen) = Canned::new(&[("200 OK", JSON, SUCCESS)]).run(&["invoke", "hello", r#"{"a": 1}"#]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert_eq!(stdout(&output), "{\n  \"n\": 3\n}\n");
    assert!(stderr(&output).contains("printed"), "{}", stderr(&output));
    assert_eq!(seen[0].line, "POST /run");
    assert!(seen[0].head.contains("x-api-key: secret-key"), "{}", seen[0].head);
    assert_eq!(seen[0].body, r#"{"name":"hello","inputData":{"a": 1}}"#);
}

#[test]
fn a_function_that_failed_exits_with_1_and_says_why() {
    let (output, _) = Canned::new(&[("200 OK", JSON, FAILED)]).run(&["invoke", "hello"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(1), ""));
    let text = stderr(&output);
    assert!(text.contains("FunctionError: ValueError: no") && text.contains("main.py:2"), "{text}");
}

#[test]
fn refusals_exit_by_their_kind() {
    for (status, code) in
        [("400 Bad Request", 2), ("404 Not Found", 4), ("401 Unauthorized", 4), ("503 Unavailable", 3)]
    {
        let body = r#"{"error":"a sentence","code":"SomeCode","requestId":"r"}"#;
        let (output, _) = Canned::new(&[(status, JSON, body)]).run(&["invoke", "hello"]);
        assert_eq!(output.status.code(), Some(code), "{status}");
        assert_eq!(stderr(&output), "faasd: a sentence [SomeCode] (request r)\n");
    }
}

#[test]
fn what_is_not_json_is_never_sent() {
    let (output, seen) = Canned::new(&[("200 OK", JSON, SUCCESS)]).run(&["invoke", "hello", "hi"]);
    assert_eq!((output.status.code(), seen.len()), (Some(2), 0));
    assert!(stderr(&output).contains("not JSON"), "{}", stderr(&output));
}

#[test]
fn an_id_is_sent_as_one() {
    let id = "00000000-0000-4000-8000-000000000000";
    let (_, seen) = Canned::new(&[("200 OK", JSON, SUCCESS)]).run(&["invoke", id]);
    assert_eq!(seen[0].body, format!(r#"{{"functionId":"{id}","inputData":null}}"#));
}

#[test]
fn async_waits_for_the_end_when_told_to() {
    let answers = [
        ("202 Accepted", JSON, r#"{"status":"ACCEPTED","jobId":"j"}"#),
        ("200 OK", JSON, r#"{"status":"RUNNING","requestId":"j"}"#),
        ("200 OK", JSON, SUCCESS),
    ];
    let (output, seen) = Canned::new(&answers).run(&["invoke", "hello", "--async", "--wait"]);
    assert_eq!(output.status.code(), Some(0), "{}", stderr(&output));
    assert!(seen[0].head.contains("x-async: true"));
    let lines: Vec<&str> = seen.iter().map(|seen| seen.line.as_str()).collect();
    assert_eq!(lines, ["POST /run", "GET /status/j", "GET /status/j"]);
}

#[test]
fn a_stream_is_shown_as_it_comes_and_ends_with_the_result() {
    let events = "id: 1\nevent: queued\ndata: {}\n\nid: 2\nevent: log\ndata: {\"stream\":\"stdout\",\"line\":\"step one\"}\n\n\
                  id: 3\nevent: result\ndata: {\"status\":\"SUCCESS\",\"requestId\":\"r\",\"result\":7,\"stdout\":\"step one\"}\n\n";
    let (output, seen) = Canned::new(&[("200 OK", "text/event-stream", events)]).run(&["invoke", "hello", "--stream"]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "7\n"), "{}", stderr(&output));
    assert_eq!(stderr(&output).matches("step one").count(), 1, "{}", stderr(&output));
    assert!(seen[0].head.contains("accept: text/event-stream"));
}

#[test]
fn deploy_uploads_a_folder_under_its_manifest() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("main.py"), "def handler(e): return e\n").expect("written");
    std::fs::write(folder.path().join("function.toml"), "name = \"hello\"\nmemory_mb = 64\n").expect("written");
    let answer = r#"{"success":true,"functionId":"f","name":"hello","version":2}"#;
    let (output, seen) =
        Canned::new(&[("200 OK", JSON, answer)]).run(&["deploy", folder.path().to_str().expect("UTF-8")]);
    assert_eq!((output.status.code(), stdout(&output).as_str()), (Some(0), "deployed hello version 2 (f)\n"));
    assert_eq!(seen[0].line, "POST /upload");
    assert!(seen[0].head.contains("content-type: multipart/form-data; boundary="), "{}", seen[0].head);
    for part in
        ["name=\"x-function-name\"\r\n\r\nhello", "name=\"x-runtime\"\r\n\r\npython", "name=\"x-memory-mb\"\r\n\r\n64"]
    {
        assert!(seen[0].body.contains(part), "{part} is missing");
    }
    assert!(!seen[0].body.contains("function.toml"), "the manifest is not code");
}

#[test]
fn listings_follow_their_cursor_into_one_table() {
    let answers = [
        (
            "200 OK",
            JSON,
            r#"{"items":[{"name":"a","runtime":"python","version":1,"functionId":"1"}],"nextCursor":"c/2"}"#,
        ),
        ("200 OK", JSON, r#"{"items":[{"name":"bb","runtime":"go","version":12,"functionId":"2"}]}"#),
    ];
    let (output, seen) = Canned::new(&answers).run(&["functions"]);
    let lines: Vec<String> = stdout(&output).lines().map(ToOwned::to_owned).collect();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert!(lines[0].starts_with("NAME  RUNTIME") && lines[2].starts_with("bb    go"), "{lines:?}");
    assert!(seen[1].line.ends_with("&cursor=c%2F2"), "{}", seen[1].line);
}

#[test]
fn json_output_is_one_array() {
    let answer = ("200 OK", JSON, r#"{"items":[{"id":"k","name":"ci","scopes":["invoke"]}]}"#);
    let (output, _) = Canned::new(&[answer]).run(&["keys", "list", "--json"]);
    let items: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    assert_eq!(items[0]["name"], "ci");
}

#[test]
fn a_new_keys_secret_is_alone_on_stdout() {
    let answer = ("201 Created", JSON, r#"{"id":"k","name":"ci","scopes":["invoke"],"secret":"s3cret"}"#);
    let (output, seen) = Canned::new(&[answer]).run(&["keys", "create", "ci", "--scope", "invoke"]);
    assert_eq!(stdout(&output), "s3cret\n");
    assert_eq!(seen[0].body, r#"{"name":"ci","scopes":["invoke"]}"#);
}

#[test]
fn an_access_key_is_asked_for_by_its_function_and_may_have_an_end() {
    let answer = ("201 Created", JSON, r#"{"id":"k","secret":"s3cret"}"#);
    let (output, seen) = Canned::new(&[answer]).run(&["keys", "create", "--function", "f", "--expires-in", "30d"]);
    assert_eq!(stdout(&output), "s3cret\n", "{}", stderr(&output));
    let body: serde_json::Value = serde_json::from_str(&seen[0].body).expect("JSON");
    assert_eq!((&body["functionId"], &body["name"]), (&"f".into(), &"access to f".into()));
    assert!(body.get("scopes").is_none() && body["expiresAt"].as_str().is_some_and(|at| at.ends_with('Z')), "{body}");
    let output = faasd(&["keys", "create", "--function", "f", "--scope", "admin"], &[]);
    assert_eq!(output.status.code(), Some(2));
    let (_, seen) = Canned::new(&[answer]).run(&["keys", "create", "ci"]);
    assert_eq!(seen[0].body, r#"{"name":"ci","scopes":["invoke","read"]}"#);
}

#[test]
fn the_audit_log_is_shown_newest_first_and_no_further_than_asked() {
    let page = r#"{"items":[{"seq":3,"action":"key.create","owner":"admin"},{"seq":2,"action":"node.start"}],"nextCursor":"2"}"#;
    let (output, seen) = Canned::new(&[("200 OK", JSON, page)]).run(&["audit", "--limit", "1"]);
    assert!(stdout(&output).contains("key.create") && !stdout(&output).contains("node.start"), "{}", stdout(&output));
    assert!(seen[0].line.contains("/audit?limit=1"), "{}", seen[0].line);
}

#[test]
fn nobody_answering_is_said_with_the_way_to_mend_it() {
    let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a free port").port();
    let url = format!("http://127.0.0.1:{port}");
    let output = faasd(&["functions", "--url", &url], &[]);
    assert_eq!(output.status.code(), Some(3));
    assert!(stderr(&output).starts_with(&format!("faasd: no daemon answers at {url}")), "{}", stderr(&output));
    let output = faasd(&["functions", "--url", "ftp://host"], &[]);
    assert_eq!(output.status.code(), Some(2));
}

#[test]
fn the_key_of_the_data_directory_is_used_without_another() {
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("admin.key"), "from-the-file\n").expect("written");
    let canned = Canned::new(&[("200 OK", JSON, r#"{"items":[]}"#)]);
    let output = faasd(&["workers", "--url", &canned.url, "--data-dir", folder.path().to_str().expect("UTF-8")], &[]);
    assert_eq!(stdout(&output), "(none)\n", "{}", stderr(&output));
    assert!(canned.seen.recv().expect("a request").head.contains("x-api-key: from-the-file"));
}

/// The trial says what the daemon would: where it makes sandboxes (as these tests need), so can doctor, beside it.
#[test]
fn doctor_makes_a_sandbox_on_trial_and_leaves_nothing() {
    assert!(nix::unistd::geteuid().is_root(), "needs root, to make real sandboxes: run `make test` as root");
    let vars = [("FAASD_SANDBOX__CGROUP_PREFIX", "faasd-doctor-test")];
    let output = faasd(&["doctor", "--json", "--url", "http://127.0.0.1:1"], &vars);
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let trial = answer["checks"].as_array().and_then(|all| all.iter().find(|check| check["name"] == "sandbox"));
    let trial = trial.unwrap_or_else(|| panic!("no trial in {answer}"));
    assert_ne!(trial["state"], "missing", "{trial}");
    for found in ["/sys/fs/cgroup/memory", "/sys/fs/cgroup/unified", "/sys/fs/cgroup"] {
        let group = std::path::Path::new(found).join("faasd-doctor-test");
        let left =
            std::fs::read_dir(&group).map_or(0, |entries| entries.flatten().filter(|e| e.path().is_dir()).count());
        assert_eq!(left, 0, "groups are left below {}", group.display());
        let _ = std::fs::remove_dir(&group);
    }
    let broken = faasd(&["doctor", "--json", "--url", "http://127.0.0.1:1"], &[("FAASD_POOL__SANDBOXES_MAX", "0")]);
    assert_eq!(broken.status.code(), Some(1));
    assert!(stdout(&broken).contains("pool.sandboxes_max"), "{}", stdout(&broken));
}

#[test]
fn doctor_tells_programs_too() {
    let output = faasd(&["doctor", "--json", "--url", "http://127.0.0.1:1"], &[]);
    let answer: serde_json::Value = serde_json::from_str(&stdout(&output)).expect("JSON");
    let checks = answer["checks"].as_array().expect("checks");
    let missing = checks.iter().any(|check| check["state"] == "missing");
    assert_eq!(output.status.code(), Some(i32::from(missing)));
    for check in checks {
        assert_eq!(check["state"] == "good", check["mend"].is_null(), "what is not good says how to mend it: {check}");
    }
    // No daemon answers, which is weak at least.
    let strict = faasd(&["doctor", "--strict", "--url", "http://127.0.0.1:1"], &[]);
    assert_eq!(strict.status.code(), Some(1), "{}", stdout(&strict));
    for name in ["cgroups", "sandbox", "seccomp", "landlock", "runtime python", "daemon", "data directory", "free disk"]
    {
        assert!(
            checks.iter().any(|check| check["name"].as_str().is_some_and(|n| n.starts_with(name))),
            "{name} is missing"
        );
    }
}

#[test]
fn resize_follows_the_advice_or_says_that_there_is_none() {
    let before = r#"{"name":"hello","memoryMb":512,"advice":{"recommendedMemoryMb":128,"tip":"128 MB would do"}}"#;
    let after = r#"{"name":"hello","memoryMb":128,"version":4}"#;
    let answers = [("200 OK", JSON, before), ("200 OK", JSON, after)];
    let (output, seen) = Canned::new(&answers).run(&["functions", "resize", "hello"]);
    assert_eq!(stdout(&output), "hello has 128 MB instead of 512 from version 4 on\n", "{}", stderr(&output));
    assert_eq!((seen[0].line.as_str(), seen[1].line.as_str()), ("GET /functions/hello", "PATCH /functions/hello"));
    assert_eq!(seen[1].body, r#"{"memoryMb":128}"#);

    let (output, seen) = Canned::new(&answers).run(&["functions", "resize", "hello", "--memory", "256"]);
    assert_eq!((output.status.code(), seen[1].body.as_str()), (Some(0), r#"{"memoryMb":256}"#));

    let silent = [("200 OK", JSON, r#"{"name":"hello","memoryMb":512,"advice":null}"#)];
    let (output, seen) = Canned::new(&silent).run(&["functions", "resize", "hello"]);
    assert_eq!((output.status.code(), seen.len()), (Some(2), 1));
    assert!(stderr(&output).contains("--memory"), "{}", stderr(&output));
}
