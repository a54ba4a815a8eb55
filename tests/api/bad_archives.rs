//! Archives that are refused: at once, for the right reason, in one clear sentence, with nothing left of them.

use std::fs;
use std::path::Path;

use serde_json::json;

use crate::support::archive::{bomb, many_entries, zip, zip_with_device, zip_with_link};
use crate::support::client::Answer;
use crate::support::daemon::Daemon;
use crate::support::multipart::Form;
use crate::support::platform::{ECHO, inline, zipped};

const MAIN: &[u8] = ECHO.as_bytes();
const GIB: u64 = 1 << 30;

async fn upload(daemon: &Daemon, archive: &[u8]) -> Answer {
    let form = Form::default().field("x-function-name", "f").field("x-runtime", "python");
    form.file("code.zip", archive).upload(daemon).send().await
}

/// Bytes in files below `dir`.
fn bytes_below(dir: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(dir) else { return 0 };
    let sizes = entries.flatten().map(|entry| match entry.metadata() {
        Ok(meta) if meta.is_dir() => bytes_below(&entry.path()),
        Ok(meta) => meta.len(),
        Err(_) => 0,
    });
    sizes.sum()
}

#[tokio::test]
async fn what_is_no_archive_or_reaches_outside_is_refused() {
    let daemon = Daemon::start().await;
    let whole = zip(&[("main.py", MAIN)]);
    let cases: [(&str, Vec<u8>); 13] = [
        ("not a zip", b"this is not an archive at all".to_vec()),
        ("nothing", Vec::new()),
        ("no entries", zip(&[])),
        ("torn", whole[..whole.len() / 2].to_vec()),
        ("slip", zip(&[("main.py", MAIN), ("../../evil.py", MAIN)])),
        ("slip inside", zip(&[("main.py", MAIN), ("a/../../evil.py", MAIN)])),
        ("absolute", zip(&[("main.py", MAIN), ("/etc/evil", MAIN)])),
        ("backslashes", zip(&[("main.py", MAIN), ("..\\evil.py", MAIN)])),
        ("link out", zip_with_link("secrets", "/etc/shadow", MAIN)),
        ("relative link out", zip_with_link("a/secrets", "../../../etc/shadow", MAIN)),
        ("device", zip_with_device(MAIN)),
        ("no handler", zip(&[("readme.txt", b"hello")])),
        ("empty handler", zip(&[("main.py", b"")])),
    ];
    for (what, archive) in cases {
        let answer = upload(&daemon, &archive).await;
        assert_eq!(answer.status, 422, "{what}: {}", answer.text());
        answer.refused(422);
        let json = daemon.post("/functions", &zipped("f", "python", &archive)).send().await;
        assert!([400, 422].contains(&json.status), "{what}: {}", json.text());
    }
    daemon.get("/functions/f").send().await.refused(404);
    assert!(!Path::new("/evil.py").exists() && !Path::new("/etc/evil").exists());
    assert!(!daemon.data_dir().join("evil.py").exists());
}

#[tokio::test]
async fn a_link_that_stays_inside_is_either_kept_or_refused() {
    let daemon = Daemon::start().await;
    let archive = zip_with_link("alias.py", "main.py", MAIN);
    let answer = upload(&daemon, &archive).await;
    if answer.status == 200 {
        assert_eq!(daemon.result("f", &json!(5)).await, 5);
    } else {
        answer.refused(422);
    }
}

#[tokio::test]
async fn a_gigabyte_of_zeros_is_refused_while_reading() {
    let daemon = Daemon::start().await;
    let before = bytes_below(&daemon.data_dir());
    let archive = bomb(GIB, MAIN);
    let (sentence, _) = upload(&daemon, &archive).await.refused(413);
    assert!(sentence.contains("unpack") || sentence.contains("ratio"), "{sentence}");
    let grown = bytes_below(&daemon.data_dir()).saturating_sub(before);
    assert!(grown < 32 << 20, "{grown} bytes of it were kept");
    daemon.deploy_python("f", ECHO).await;
    assert_eq!(daemon.result("f", &json!(1)).await, 1, "and the daemon goes on");
}

#[tokio::test]
async fn twenty_thousand_entries_are_refused() {
    let daemon = Daemon::start().await;
    let (sentence, _) = upload(&daemon, &many_entries(20_000, MAIN)).await.refused(413);
    assert!(sentence.contains("10000") || sentence.contains("10,000") || sentence.contains("10 000"), "{sentence}");
}

#[tokio::test]
async fn an_archive_above_the_limit_is_too_large() {
    let daemon = Daemon::with("LIMITS__ZIP_BYTES", 200_000).start().await;
    let noise: Vec<u8> = (0..300_000u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
    upload(&daemon, &zip(&[("main.py", MAIN), ("noise", &noise)])).await.refused(413);
    upload(&daemon, &zip(&[("main.py", MAIN), ("noise", &noise[..1000])])).await.expect(200);
}

#[tokio::test]
async fn a_failed_update_leaves_the_function_as_it_was() {
    let daemon = Daemon::start().await;
    daemon.deploy_python("f", ECHO).await;
    upload(&daemon, b"not a zip").await.refused(422);
    let shown = daemon.get("/functions/f").send().await.expect(200);
    assert_eq!(shown["version"], 1);
    assert_eq!(daemon.result("f", &json!("still")).await, "still");
}

#[tokio::test]
async fn a_syntax_error_is_an_init_error_with_its_file_and_line() {
    let daemon = Daemon::start().await;
    let record = {
        let answer =
            daemon.post("/functions", &inline("f", "python", "x = 1\ndef handler(event, context:\n")).send().await;
        assert_eq!(answer.status, 201, "{}", answer.text());
        daemon.call("f", &json!({})).await
    };
    assert_eq!((&record["status"], &record["errorType"]), (&json!("FAILED"), &json!("InitError")), "{record}");
    let words = format!("{} {}", record["errorMessage"], record["stackTrace"]);
    assert!(words.contains("SyntaxError") && words.contains("main.py") && words.contains('2'), "{words}");
}

#[tokio::test]
async fn a_handler_that_is_not_there_is_named() {
    let daemon = Daemon::start().await;
    let missing = json!({ "handler": "main.absent" });
    daemon.deploy_python_with("f", ECHO, missing).await;
    let record = daemon.call("f", &json!({})).await;
    assert_eq!(record["errorType"], "InitError", "{record}");
    assert!(record["errorMessage"].as_str().is_some_and(|message| message.contains("absent")), "{record}");
    daemon
        .post(
            "/functions",
            &crate::support::platform::merged(inline("g", "python", ECHO), json!({ "handler": "other.f" })),
        )
        .send()
        .await
        .refused(422);
}
