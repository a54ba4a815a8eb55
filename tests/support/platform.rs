//! What a user does with the platform, in one call each. The shapes of answers that the tests rely on stand here alone.

use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};

use super::client::{Answer, Client, Request};

/// How long an invocation may take to its end before a test gives up.
const FINAL_LIMIT: Duration = Duration::from_secs(90);

pub const ECHO: &str = "def handler(event, context):\n    return event\n";

/// A function as its creation answered it.
#[derive(Debug, Clone)]
pub struct Deployed {
    pub id: String,
    pub name: String,
    pub version: u64,
}

impl Deployed {
    #[track_caller]
    pub fn from_answer(answer: &Value) -> Self {
        let text = |name: &str| answer[name].as_str().unwrap_or_else(|| panic!("no {name} in {answer}")).to_owned();
        let version = answer["version"].as_u64().unwrap_or_else(|| panic!("no version in {answer}"));
        Self { id: text("functionId"), name: text("name"), version }
    }
}

/// Lays `changes` over `base`, key by key.
pub fn merged(mut base: Value, changes: Value) -> Value {
    let (Value::Object(to), Value::Object(from)) = (&mut base, changes) else { panic!("both are objects") };
    to.extend(from);
    base
}

pub fn inline(name: &str, runtime: &str, source: &str) -> Value {
    json!({ "name": name, "runtime": runtime, "code": { "inline": source } })
}

pub fn zipped(name: &str, runtime: &str, archive: &[u8]) -> Value {
    json!({ "name": name, "runtime": runtime, "code": { "zipBase64": BASE64_STANDARD.encode(archive) } })
}

/// The items of a listing and the cursor of its next page.
#[track_caller]
pub fn page(listing: &Value) -> (Vec<Value>, Option<String>) {
    let items = listing["items"].as_array().unwrap_or_else(|| panic!("no items in {listing}")).clone();
    (items, listing["nextCursor"].as_str().map(str::to_owned))
}

impl Client {
    pub async fn deploy(&self, definition: Value) -> Deployed {
        Deployed::from_answer(&self.post("/functions", &definition).send().await.expect(201))
    }

    pub async fn deploy_python(&self, name: &str, source: &str) -> Deployed {
        self.deploy(inline(name, "python", source)).await
    }

    pub async fn deploy_python_with(&self, name: &str, source: &str, changes: Value) -> Deployed {
        self.deploy(merged(inline(name, "python", source), changes)).await
    }

    /// A synchronous call, not yet sent.
    pub fn run(&self, name: &str, input: &Value) -> Request {
        self.post("/run", &json!({ "name": name, "inputData": input }))
    }

    /// The record of a synchronous call.
    pub async fn call(&self, name: &str, input: &Value) -> Value {
        self.run(name, input).send().await.expect(200)
    }

    /// The result of a synchronous call that succeeds.
    pub async fn result(&self, name: &str, input: &Value) -> Value {
        let record = self.call(name, input).await;
        assert_eq!(record["status"], "SUCCESS", "{record}");
        record["result"].clone()
    }

    /// An asynchronous call, accepted: its id.
    pub async fn submit(&self, name: &str, input: &Value) -> String {
        accepted(&self.run(name, input).header("x-async", "true").send().await)
    }

    /// The record of an accepted invocation, now.
    pub async fn status(&self, id: &str) -> Value {
        self.get(&format!("/status/{id}")).send().await.expect(200)
    }

    /// The record once it satisfies `condition`.
    pub async fn wait_until(&self, id: &str, condition: impl Fn(&Value) -> bool) -> Value {
        let since = Instant::now();
        loop {
            let record = self.status(id).await;
            if condition(&record) {
                return record;
            }
            assert!(since.elapsed() < FINAL_LIMIT, "still not so after {FINAL_LIMIT:?}: {record}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub async fn wait_final(&self, id: &str) -> Value {
        self.wait_until(id, is_final).await
    }

    pub async fn wait_running(&self, id: &str) -> Value {
        self.wait_until(id, |record| record["status"] != "QUEUED").await
    }

    /// A new key's id and secret.
    pub async fn create_key(&self, owner: &str, scopes: &[&str]) -> (String, String) {
        let asked = json!({ "name": format!("{owner}-key"), "owner": owner, "scopes": scopes });
        let key = self.post("/keys", &asked).send().await.expect(201);
        let text = |name: &str| key[name].as_str().unwrap_or_else(|| panic!("no {name} in {key}")).to_owned();
        (text("id"), text("key"))
    }

    /// An access key for one function: its id and its secret.
    pub async fn create_access_key(&self, function: &str) -> (String, String) {
        let asked = json!({ "name": format!("for {function}"), "functionId": function });
        let key = self.post("/keys", &asked).send().await.expect(201);
        let text = |name: &str| key[name].as_str().unwrap_or_else(|| panic!("no {name} in {key}")).to_owned();
        (text("id"), text("secret"))
    }

    /// A caller with a key of its own.
    pub async fn caller(&self, owner: &str, scopes: &[&str]) -> Client {
        self.as_key(&self.create_key(owner, scopes).await.1)
    }

    /// The samples of the daemon's metrics.
    pub async fn metrics(&self) -> Samples {
        let answer = self.get("/metrics").send().await;
        assert_eq!(answer.status, 200, "{}", answer.text());
        Samples(answer.text())
    }

    /// Invocations of a function that ended with `status`, as the metrics count them.
    pub async fn counted(&self, function: &str, status: &str) -> f64 {
        let labels = [format!("function=\"{function}\""), format!("status=\"{status}\"")];
        self.metrics().await.sum("faasd_worker_invocations_total", &[&labels[0], &labels[1]])
    }

    /// Every item of a listing, page after page.
    pub async fn list_all(&self, path: &str, limit: usize) -> Vec<Value> {
        let mut all = Vec::new();
        let mut cursor: Option<String> = None;
        loop {
            let join = if path.contains('?') { '&' } else { '?' };
            let at = cursor.map(|cursor| format!("&cursor={cursor}")).unwrap_or_default();
            let (items, next) = page(&self.get(&format!("{path}{join}limit={limit}{at}")).send().await.expect(200));
            assert!(items.len() <= limit, "{} items on a page of {limit}", items.len());
            all.extend(items);
            cursor = next;
            if cursor.is_none() {
                return all;
            }
        }
    }
}

pub fn is_final(record: &Value) -> bool {
    !matches!(record["status"].as_str(), Some("QUEUED" | "RUNNING"))
}

/// The id in a 202.
#[track_caller]
pub fn accepted(answer: &Answer) -> String {
    let body = answer.expect(202);
    assert_eq!(body["status"], "ACCEPTED");
    body["jobId"].as_str().unwrap_or_else(|| panic!("no jobId in {body}")).to_owned()
}

/// Prometheus text.
pub struct Samples(pub String);

impl Samples {
    /// The sum of all samples of `name` whose labels contain every one of `labels` (`status="FAILED"`).
    pub fn sum(&self, name: &str, labels: &[&str]) -> f64 {
        let samples = self.0.lines().filter_map(|line| line.strip_prefix(name));
        let samples = samples.filter(|rest| rest.starts_with(['{', ' ']));
        let samples = samples.filter(|rest| labels.iter().all(|label| rest.contains(label)));
        samples.filter_map(|rest| rest.rsplit(' ').next()?.parse::<f64>().ok()).sum()
    }
}
