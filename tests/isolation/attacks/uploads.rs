//! Packages and forms that are more than code: ways out of the folder, bombs, forms without end.

use std::time::Duration;

use http::Method;
use serde_json::json;

use super::siege::{Siege, attacks};
use crate::support::archive::{bomb, many_entries, zip, zip_with_device, zip_with_link, zip_with_modes};
use crate::support::client::Answer;
use crate::support::daemon::Daemon;
use crate::support::multipart::Form;
use crate::support::platform::ECHO;

attacks! {
    "archive-upwards" => upwards,
    "archive-absolute" => absolute,
    "archive-with-link-out" => link_out,
    "archive-with-device" => device,
    "archive-bomb" => zeros,
    "archive-in-archive-bomb" => nested,
    "archive-of-many-entries" => entries,
    "archive-entry-twice" => entry_twice,
    "archive-with-set-uid" => set_uid,
    "archive-torn" => torn,
    "archive-with-odd-names" => odd_names,
    "form-without-boundary" => no_boundary,
    "form-without-end" => no_end,
    "form-of-many-parts" => many_parts,
    "form-with-huge-field" => huge_field,
    "form-in-a-form" => form_in_form,
    "form-field-twice" => field_twice,
    "form-file-name-upwards" => file_name_upwards,
}

const MAIN: &[u8] = ECHO.as_bytes();
const MIB: u64 = 1 << 20;

#[tokio::test]
async fn packages_stay_packages() {
    let settings = Daemon::with("LIMITS__UNPACKED_BYTES", 64 * MIB).set("LIMITS__ZIP_BYTES", 8 * MIB);
    let mut siege = Siege::of(settings.set("HTTP__BODY_TIMEOUT_MS", 2000)).await;
    // The control: the same form with a good package.
    upload(&siege, &zip(&[("main.py", MAIN)])).await.expect(200);
    assert_eq!(siege.mallory.result("good", &json!(1)).await, 1);
    siege.run(ATTACKS).await;
    let disk = std::process::Command::new("du").arg("-sm").arg(siege.daemon.data_dir()).output().expect("du runs");
    let mib: u64 =
        String::from_utf8_lossy(&disk.stdout).split_whitespace().next().and_then(|n| n.parse().ok()).expect("a size");
    let small = if mib < 100 { Ok(()) } else { Err(format!("{mib} MiB of it are kept")) };
    siege.judge("all of them together", small).await;
    siege.lift();
}

fn form() -> Form {
    Form::default().field("x-function-name", "good").field("x-runtime", "python")
}

async fn upload(siege: &Siege, archive: &[u8]) -> Answer {
    form().file("code.zip", archive).upload(&siege.mallory).send().await
}

#[track_caller]
fn one_of(answer: &Answer, statuses: &[u16]) {
    assert!(statuses.contains(&answer.status), "{} {}", answer.status, answer.text());
}

async fn upwards(siege: &Siege) {
    for name in ["../evil.py", "a/../../evil.py", "..\\evil.py", "a/..", "./../evil.py"] {
        one_of(&upload(siege, &zip(&[("main.py", MAIN), (name, MAIN)])).await, &[422]);
    }
    assert!(!siege.daemon.data_dir().join("evil.py").exists());
}

async fn absolute(siege: &Siege) {
    for name in ["/etc/evil", "//etc/evil", "C:\\evil", "\\\\host\\evil"] {
        one_of(&upload(siege, &zip(&[("main.py", MAIN), (name, MAIN)])).await, &[422]);
    }
    assert!(!std::path::Path::new("/etc/evil").exists());
}

async fn link_out(siege: &Siege) {
    for target in ["/etc/shadow", "../../../etc/shadow", "/proc/self/environ", "a/../../.."] {
        one_of(&upload(siege, &zip_with_link("secrets", target, MAIN)).await, &[422]);
    }
}

async fn device(siege: &Siege) {
    one_of(&upload(siege, &zip_with_device(MAIN)).await, &[422]);
}

async fn zeros(siege: &Siege) {
    one_of(&upload(siege, &bomb(1 << 30, MAIN)).await, &[413, 422]);
}

/// A bomb inside is a file like any other: nobody unpacks it.
async fn nested(siege: &Siege) {
    let inner = bomb(32 * MIB, MAIN);
    let answer = upload(siege, &zip(&[("main.py", MAIN), ("inner.zip", &inner)])).await;
    one_of(&answer, &[200, 413, 422]);
    if answer.status == 200 {
        let source = format!(
            "import os\ndef handler(event, context):\n    return os.path.getsize('/var/task/inner.zip') == {}\n",
            inner.len()
        );
        upload(siege, &zip(&[("main.py", source.as_bytes()), ("inner.zip", &inner)])).await.expect(200);
        assert_eq!(siege.mallory.result("good", &json!({})).await, true);
    }
}

async fn entries(siege: &Siege) {
    one_of(&upload(siege, &many_entries(20_000, MAIN)).await, &[413, 422]);
}

/// Whoever checks one and runs the other has been had.
async fn entry_twice(siege: &Siege) {
    let mut archive = zip(&[("main.py", MAIN), ("nain.py", b"def handler(event, context):\n    return 'the other'\n")]);
    let at: Vec<usize> = (0..archive.len() - 7).filter(|at| &archive[*at..*at + 7] == b"nain.py").collect();
    assert_eq!(at.len(), 2, "in its local head and in the directory");
    at.iter().for_each(|at| archive[*at] = b'm');
    one_of(&upload(siege, &archive).await, &[422]);
}

async fn set_uid(siege: &Siege) {
    let source = b"import os\ndef handler(event, context):\n    return [oct(os.stat('/var/task/' + name).st_mode & 0o6022) for name in ('tool', 'main.py')]\n";
    let archive =
        zip_with_modes([("main.py", 0o666, source.as_slice()), ("tool", 0o106_777, b"#!/bin/sh\nid\n".as_slice())]);
    let answer = upload(siege, &archive).await;
    one_of(&answer, &[200, 422]);
    if answer.status == 200 {
        assert_eq!(siege.mallory.result("good", &json!({})).await, json!(["0o0", "0o0"]));
    }
}

async fn torn(siege: &Siege) {
    let whole = zip(&[("main.py", MAIN), ("more", &[7; 5000])]);
    for length in [0, 1, 21, whole.len() / 3, whole.len() / 2, whole.len() - 1] {
        one_of(&upload(siege, &whole[..length]).await, &[400, 422]);
    }
    let mut garbled = whole.clone();
    for at in (10..whole.len()).step_by(7) {
        garbled[at] ^= 0x55;
    }
    one_of(&upload(siege, &garbled).await, &[422]);
}

async fn odd_names(siege: &Siege) {
    let long = "n/".repeat(3000) + "x";
    for name in ["a\nb", "a\0b", "con\u{202e}gnp", &long, &"x".repeat(300)] {
        let answer = upload(siege, &zip(&[("main.py", MAIN), (name, MAIN)])).await;
        one_of(&answer, &[200, 413, 422]);
        if answer.status == 200 {
            assert_eq!(siege.mallory.result("good", &json!(1)).await, 1, "{name:.20?}");
        }
    }
}

async fn raw(siege: &Siege, kind: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = siege.mallory.request(Method::POST, "/upload").header("content-type", kind);
    request.body(body.into()).send().await
}

async fn no_boundary(siege: &Siege) {
    for kind in
        ["multipart/form-data", "multipart/form-data; boundary=", "multipart/form-data; boundary=\"\"", "text/plain"]
    {
        one_of(&raw(siege, kind, "--x\r\n\r\n--x--").await, &[400, 415, 422]);
    }
}

async fn no_end(siege: &Siege) {
    let body = "--x\r\ncontent-disposition: form-data; name=\"x-function-name\"\r\n\r\ngood";
    one_of(&raw(siege, "multipart/form-data; boundary=x", body).await, &[400, 422]);
    let key = siege.mallory.key();
    let head = format!(
        "POST /upload HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-type: multipart/form-data; boundary=x\r\ncontent-length: 100000\r\n\r\n{body}"
    );
    let answer = siege.mallory.exchange(head.as_bytes(), Duration::from_secs(15)).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
}

async fn many_parts(siege: &Siege) {
    let mut form = form();
    for n in 0..5000 {
        form = form.field(&format!("f{n}"), "x");
    }
    one_of(&form.file("code.zip", &zip(&[("main.py", MAIN)])).upload(&siege.mallory).send().await, &[400, 413, 422]);
}

async fn huge_field(siege: &Siege) {
    let large = "x".repeat(6 << 20);
    for field in ["description", "envVars", "x-function-name", "unknown"] {
        let answer = form()
            .field(field, &large)
            .file("code.zip", &zip(&[("main.py", MAIN)]))
            .upload(&siege.mallory)
            .send()
            .await;
        one_of(&answer, &[400, 413]);
    }
}

async fn form_in_form(siege: &Siege) {
    let inner = "--y\r\ncontent-disposition: form-data; name=\"x-function-name\"\r\n\r\nhidden\r\n--y--\r\n";
    let body = format!(
        "--x\r\ncontent-disposition: form-data; name=\"x-function-name\"\r\ncontent-type: multipart/mixed; boundary=y\r\n\r\n{inner}\r\n--x--\r\n"
    );
    one_of(&raw(siege, "multipart/form-data; boundary=x", body).await, &[400, 422]);
    siege.mallory.get("/functions/hidden").send().await.refused(404);
}

async fn field_twice(siege: &Siege) {
    let form = form().field("x-function-name", "other").file("code.zip", &zip(&[("main.py", MAIN)]));
    let answer = form.upload(&siege.mallory).send().await;
    one_of(&answer, &[200, 400, 422]);
    if answer.status == 200 {
        let name = answer.json()["name"].as_str().expect("a name").to_owned();
        assert_eq!(siege.mallory.result(&name, &json!(1)).await, 1, "it is the one that it says");
        let shown = siege.mallory.get("/functions/other").send().await;
        assert_eq!(shown.status == 200, name == "other", "and the other one is not there");
    }
}

/// A single source file is kept under a name of ours, not under the caller's.
async fn file_name_upwards(siege: &Siege) {
    for name in ["../../evil.py", "/etc/evil.py", "..\\evil.py", "evil.py\0.zip", "a\u{202e}yp.evil"] {
        let answer = form().file(name, MAIN).upload(&siege.mallory).send().await;
        one_of(&answer, &[200, 400, 422]);
        if answer.status == 200 {
            assert_eq!(siege.mallory.result("good", &json!(1)).await, 1, "{name:?}");
        }
    }
    assert!(!siege.daemon.data_dir().join("evil.py").exists() && !std::path::Path::new("/etc/evil.py").exists());
}
