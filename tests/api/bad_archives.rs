//! Archives that are refused: at once, for the right reason, in one clear sentence, with nothing left of them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::archive::{bomb, last_header, many_entries, zip, zip_changed, zip_with_device, zip_with_link};
use crate::support::client::Answer;
use crate::support::daemon::Daemon;
use crate::support::footprint::bytes_below;
use crate::support::multipart::Form;
use crate::support::platform::{ECHO, inline, zipped};

const MAIN: &[u8] = ECHO.as_bytes();
const GIB: u64 = 1 << 30;

async fn upload(daemon: &Daemon, archive: &[u8]) -> Answer {
    let form = Form::default().field("x-function-name", "f").field("x-runtime", "python");
    form.file("code.zip", archive).upload(daemon).send().await
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

/// Each is refused by one sentence, which names the entry where there is one to blame.
#[tokio::test]
async fn what_says_two_things_or_hides_something_is_refused_by_a_sentence() {
    const LOCAL: &[u8; 4] = b"PK\x03\x04";
    const CENTRAL: &[u8; 4] = b"PK\x01\x02";
    const END: &[u8; 4] = b"PK\x05\x06";
    let at = |kind: &'static [u8; 4], offset: usize, bytes: &'static [u8]| {
        zip_changed(MAIN, move |archive| {
            let at = last_header(archive, kind) + offset;
            archive[at..at + bytes.len()].copy_from_slice(bytes);
        })
    };
    let overlap = zip_changed(MAIN, |archive| {
        let (first, last) = (archive.windows(4).position(|w| w == CENTRAL).unwrap(), last_header(archive, CENTRAL));
        let (facts, place) = (archive[first + 16..first + 28].to_vec(), archive[first + 42..first + 46].to_vec());
        archive[last + 16..last + 28].copy_from_slice(&facts);
        archive[last + 42..last + 46].copy_from_slice(&place);
    });
    let whole = zip(&[("main.py", MAIN)]);
    let daemon = Daemon::start().await;
    for (what, archive, words) in [
        ("another name", at(LOCAL, 30, b"evils"), "other.py"),
        ("another size", at(LOCAL, 22, &[7, 0]), "other.py"),
        ("encrypted", at(LOCAL, 6, &[1, 0]), "encrypted"),
        ("a hidden entry", at(END, 8, &[1, 0, 1, 0]), "other entries"),
        ("split", at(END, 4, &[1, 0]), "split"),
        ("overlapping", overlap, "overlap"),
        ("fifo", at(CENTRAL, 40, &[0xa4, 0x11]), "other.py"),
        ("socket", at(CENTRAL, 40, &[0xed, 0xc1]), "other.py"),
        ("block device", at(CENTRAL, 40, &[0xa4, 0x61]), "other.py"),
        ("control character", zip(&[("main.py", MAIN), ("a\x1b[31m", b"")]), "\\u{1b}"),
        (
            "latin-1 name",
            zip_changed(MAIN, |archive| {
                for kind in [(LOCAL, 30), (CENTRAL, 46)] {
                    let at = last_header(archive, kind.0) + kind.1;
                    archive[at] = 0xe4;
                }
            }),
            "UTF-8",
        ),
        ("file and folder", zip(&[("main.py", MAIN), ("main.py/x", b"")]), "main.py"),
        ("too long a name", zip(&[("main.py", MAIN), (&"x".repeat(256), b"")]), "too long"),
        ("bytes before", [b"#!/bin/sh\n", &whole[..]].concat(), "not a zip archive"),
        ("bytes after", [&whole[..], b"PK"].concat(), "after its end"),
        ("two archives", [&whole[..], &whole].concat(), "before its first entry"),
    ] {
        let answer = upload(&daemon, &archive).await;
        assert_eq!(answer.status, 422, "{what}: {}", answer.text());
        let (sentence, code) = answer.refused(422);
        assert!(sentence.contains(words), "{what}: {sentence}");
        assert_eq!((code.as_str(), sentence.lines().count()), ("InvalidPackage", 1), "{what}: {sentence}");
        assert!(!sentence.chars().any(char::is_control), "{what}: {sentence:?}");
    }
    daemon.get("/functions/f").send().await.refused(404);
}

#[tokio::test]
async fn a_file_that_is_no_source_is_refused_by_what_it_is() {
    let daemon = Daemon::start().await;
    for (file_name, bytes, words) in [
        ("code.tar.gz", &b"\x1f\x8b\x08\0\0\0"[..], "gzip"),
        ("main.py", b"\x7fELF\x02\x01\x01\0", "a Linux program"),
        ("main.py", b"x = '\0'", "UTF-8"),
        ("main.py", b"\xff\xfex\0", "UTF-8"),
        ("picture.png", b"\x89PNG\r\n\x1a\n", "picture"),
    ] {
        let form = Form::default().field("x-function-name", "f").field("x-runtime", "python");
        let (sentence, _) = form.file(file_name, bytes).upload(&daemon).send().await.refused(422);
        assert!(sentence.contains(words), "{file_name}: {sentence}");
    }
}

/// The only file below the artifacts' directory.
fn only_artifact(daemon: &Daemon) -> PathBuf {
    let shards = fs::read_dir(daemon.data_dir().join("artifacts")).expect("artifacts").flatten();
    let files = shards.filter(|shard| shard.file_name() != "tmp");
    let mut files = files.flat_map(|shard| fs::read_dir(shard.path()).expect("a shard").flatten());
    let file = files.next().expect("an artifact").path();
    assert!(files.next().is_none(), "one artifact");
    file
}

/// Neither the stored package nor what was unpacked of it is taken at its name's word.
#[tokio::test]
async fn code_that_was_changed_on_disk_does_not_run() {
    let good = "def handler(event, context):\n    return 'good'\n";
    let evil = zip(&[("main.py", b"def handler(event, context):\n    return 'evil'\n")]);
    let mut daemon = Daemon::start().await;
    daemon.deploy_python("f", good).await;
    assert_eq!(daemon.result("f", &json!({})).await, "good");

    let unpacked =
        fs::read_dir(daemon.data_dir().join("code")).expect("code").flatten().next().expect("a package").path();
    daemon.kill9();
    fs::write(unpacked.join("main.py"), "def handler(event, context):\n    return 'evil'\n").expect("written");
    daemon.restart().await;
    assert_eq!(daemon.result("f", &json!({})).await, "good", "unpacked anew");

    let artifact = only_artifact(&daemon);
    daemon.kill9();
    fs::write(&artifact, &evil).expect("written");
    daemon.restart().await;
    let answer = daemon.run("f", &json!({})).send().await;
    let (sentence, code) = answer.refused(503);
    assert_eq!(code, "PlatformError", "{sentence}");
    assert!(daemon.log().contains("ERROR"), "somebody must look: {}", daemon.log());

    let form = Form::default().field("x-function-name", "f").field("x-runtime", "python");
    form.file("main.py", good.as_bytes()).upload(&daemon).send().await.expect(200);
    assert_eq!(daemon.result("f", &json!({})).await, "good", "deploying the same code again mends it");
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
    // xorshift: bytes that do not compress.
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 32) as u8
    };
    let noise: Vec<u8> = (0..300_000).map(|_| next()).collect();
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
    let form = Form::default().field("x-function-name", "g").field("x-runtime", "python").field("x-handler", "other.f");
    let (sentence, _) = form.file("code.zip", &zip(&[("main.py", MAIN)])).upload(&daemon).send().await.refused(422);
    assert!(sentence.contains("other.py"), "{sentence}");
}
