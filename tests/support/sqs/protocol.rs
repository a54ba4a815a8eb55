//! The actions of the fast SQS: JSON in, JSON out, errors by their names in the service's model.

use std::collections::BTreeMap;
use std::time::Duration;

use md5::{Digest as _, Md5};
use serde::Deserialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use super::Server;
use super::queue::{Queue, Sending, Stale};
use super::refusal::{Answer, Error};

/// Of a message, and of a batch together, in bytes.
const MESSAGE_BYTES_MAX: usize = 1 << 20;
const BATCH_MAX: usize = 10;
const DELAY_S_MAX: u64 = 900;
const VISIBILITY_S_MAX: u64 = 43_200;
const WAIT_S_MAX: u64 = 20;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Named {
    queue_name: String,
    #[serde(default)]
    attributes: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct OfQueue {
    queue_url: String,
    #[serde(default)]
    attributes: BTreeMap<String, Value>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Batch<T> {
    queue_url: String,
    entries: Vec<T>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendEntry {
    #[serde(default)]
    queue_url: String,
    #[serde(default)]
    id: String,
    message_body: Box<RawValue>,
    delay_seconds: Option<u64>,
    message_attributes: Option<Box<RawValue>>,
    message_group_id: Option<String>,
    message_deduplication_id: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct HandleEntry {
    #[serde(default)]
    queue_url: String,
    #[serde(default)]
    id: String,
    receipt_handle: String,
    visibility_timeout: Option<u64>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Receive {
    queue_url: String,
    max_number_of_messages: Option<usize>,
    visibility_timeout: Option<u64>,
    wait_time_seconds: Option<u64>,
    #[serde(default)]
    attribute_names: Vec<String>,
    #[serde(default)]
    message_system_attribute_names: Vec<String>,
    #[serde(default)]
    message_attribute_names: Vec<String>,
}

fn name_of(url: &str) -> &str {
    url.rsplit('/').next().unwrap_or(url)
}

fn texts(attributes: BTreeMap<String, Value>) -> BTreeMap<String, String> {
    let text = |value: Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    attributes.into_iter().map(|(key, value)| (key, text(value))).collect()
}

fn md5_of(text: &str) -> String {
    hex::encode(Md5::digest(text.as_bytes()))
}

/// As the developer guide says: by name, each part with its length before it.
fn md5_of_attributes(attributes: &RawValue) -> Result<String, Error> {
    let attributes: BTreeMap<String, BTreeMap<String, String>> = serde_json::from_str(attributes.get())?;
    let mut sum = Md5::new();
    for (name, value) in &attributes {
        let kind = value.get("DataType").map(String::as_str).unwrap_or_default();
        for part in [name.as_str(), kind] {
            sum.update((part.len() as u32).to_be_bytes());
            sum.update(part.as_bytes());
        }
        let (tag, bytes) = match (value.get("StringValue"), value.get("BinaryValue")) {
            (Some(text), _) => (1u8, text.clone().into_bytes()),
            (None, Some(_)) => return Err(Error::invalid("binary attributes are not kept here")),
            (None, None) => return Err(Error::invalid("an attribute has no value")),
        };
        sum.update([tag]);
        sum.update((bytes.len() as u32).to_be_bytes());
        sum.update(&bytes);
    }
    Ok(hex::encode(sum.finalize()))
}

/// What SQS takes in a body: XML's characters.
fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

impl SendEntry {
    /// With the bytes it counts, and what is answered beside its id.
    fn sending(self, queue: &Queue) -> Result<(Sending, Value), Error> {
        let text: String = serde_json::from_str(self.message_body.get())?;
        if text.is_empty() || !text.chars().all(is_allowed) {
            return Err(Error::sender("InvalidMessageContents", "InvalidMessageContents", "invalid characters"));
        }
        let most = (queue.number("MaximumMessageSize") as usize).min(MESSAGE_BYTES_MAX);
        if text.len() > most {
            return Err(Error::invalid(format!(
                "One or more parameters are invalid. Reason: Message must be shorter than {most} bytes."
            )));
        }
        if queue.fifo {
            if self.message_group_id.is_none() {
                return Err(Error::sender(
                    "MissingParameter",
                    "MissingParameter",
                    "The request must contain the parameter MessageGroupId.",
                ));
            }
            if self.delay_seconds.is_some_and(|delay| delay > 0) {
                return Err(Error::invalid(
                    "The request include parameter that is not valid for this queue type: DelaySeconds",
                ));
            }
        }
        if self.delay_seconds.is_some_and(|delay| delay > DELAY_S_MAX) {
            return Err(Error::invalid("DelaySeconds must be >= 0 and <= 900"));
        }
        let md5 = md5_of(&text);
        let content = queue.attributes.get("ContentBasedDeduplication").is_some_and(|on| on == "true");
        let deduplication = self.message_deduplication_id.or_else(|| content.then(|| md5.clone()));
        if queue.fifo && deduplication.is_none() {
            return Err(Error::invalid(
                "The queue should either have ContentBasedDeduplication enabled or MessageDeduplicationId provided explicitly",
            ));
        }
        let attributes = match self.message_attributes {
            Some(raw) if raw.get() != "null" => Some((md5_of_attributes(&raw)?, raw)),
            _ => None,
        };
        let mut answer = json!({ "MD5OfMessageBody": md5 });
        if let Some((sum, _)) = &attributes {
            answer["MD5OfMessageAttributes"] = json!(sum);
        }
        let attributes = attributes.map(|(sum, raw)| (raw, sum));
        let delay = self.delay_seconds.map(Duration::from_secs);
        Ok((
            Sending { body: self.message_body, md5, attributes, delay, group: self.message_group_id, deduplication },
            answer,
        ))
    }
}

/// The message's number and the receipt's.
fn parse_handle(handle: &str) -> Result<(u64, u64), Error> {
    let numbers = handle.strip_prefix("fast-").and_then(|rest| rest.split_once('-'));
    let (id, receipt) = numbers.ok_or(Stale::Invalid)?;
    Ok((id.parse().map_err(|_| Stale::Invalid)?, receipt.parse().map_err(|_| Stale::Invalid)?))
}

fn visibility(seconds: u64) -> Result<Duration, Error> {
    if seconds > VISIBILITY_S_MAX {
        return Err(Error::invalid("VisibilityTimeout must be between 0 and 43200."));
    }
    Ok(Duration::from_secs(seconds))
}

/// What each entry became, as SQS lists it.
fn batch_answer(entries: Vec<(String, Result<Value, Error>)>) -> Vec<u8> {
    let (mut successful, mut failed) = (Vec::new(), Vec::new());
    for (id, entry) in entries {
        match entry {
            Ok(mut answer) => {
                answer["Id"] = json!(id);
                successful.push(answer);
            }
            Err(error) => failed.push(json!({
                "Id": id, "SenderFault": error.status < 500, "Code": error.query_code, "Message": error.message,
            })),
        }
    }
    json!({ "Successful": successful, "Failed": failed }).to_string().into_bytes()
}

fn check_batch<'a>(ids: impl ExactSizeIterator<Item = &'a str>) -> Result<(), Error> {
    let many = |code: &'static str, query_code| {
        Error::sender(code, query_code, "the batch's entries are not as they should be")
    };
    match ids.len() {
        0 => return Err(many("EmptyBatchRequest", "AWS.SimpleQueueService.EmptyBatchRequest")),
        count if count > BATCH_MAX => {
            return Err(many("TooManyEntriesInBatchRequest", "AWS.SimpleQueueService.TooManyEntriesInBatchRequest"));
        }
        _ => {}
    }
    let mut seen = std::collections::HashSet::new();
    if !ids.into_iter().all(|id| seen.insert(id)) {
        return Err(many("BatchEntryIdsNotDistinct", "AWS.SimpleQueueService.BatchEntryIdsNotDistinct"));
    }
    Ok(())
}

impl Server {
    pub(super) fn create(&self, name: &str, given: BTreeMap<String, String>) -> String {
        let fifo = name.ends_with(".fifo");
        let mut attributes: BTreeMap<String, String> = [
            ("VisibilityTimeout", "30"),
            ("DelaySeconds", "0"),
            ("MaximumMessageSize", "1048576"),
            ("MessageRetentionPeriod", "345600"),
            ("ReceiveMessageWaitTimeSeconds", "0"),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        attributes.insert("QueueArn".to_owned(), format!("arn:aws:sqs:us-east-1:000000000000:{name}"));
        attributes.extend(given);
        self.queues.lock().unwrap().entry(name.to_owned()).or_insert_with(|| Queue::new(fifo, attributes));
        self.url(name)
    }

    fn with<T>(&self, url: &str, work: impl FnOnce(&mut Queue) -> Result<T, Error>) -> Result<T, Error> {
        work(self.queues.lock().unwrap().get_mut(name_of(url)).ok_or_else(Error::no_queue)?)
    }

    pub(super) fn act_at_once(&self, action: &str, body: &[u8]) -> Answer {
        match action {
            "SendMessage" => self.send_one(body),
            "SendMessageBatch" => self.send_batch(body),
            "DeleteMessage" => self.handle_one(body, |queue, id, receipt, _, now| queue.delete(id, receipt, now)),
            "DeleteMessageBatch" => {
                self.handle_batch(body, |queue, id, receipt, _, now| queue.delete(id, receipt, now))
            }
            "ChangeMessageVisibility" => self.handle_one(body, Queue::change_visibility),
            "ChangeMessageVisibilityBatch" => self.handle_batch(body, Queue::change_visibility),
            "CreateQueue" => {
                let Named { queue_name, attributes } = serde_json::from_slice(body)?;
                Ok(json!({ "QueueUrl": self.create(&queue_name, texts(attributes)) }).to_string().into_bytes())
            }
            "GetQueueUrl" => {
                let Named { queue_name, .. } = serde_json::from_slice(body)?;
                self.with(&queue_name, |_| Ok(()))?;
                Ok(json!({ "QueueUrl": self.url(&queue_name) }).to_string().into_bytes())
            }
            "DeleteQueue" => {
                let OfQueue { queue_url, .. } = serde_json::from_slice(body)?;
                self.queues.lock().unwrap().remove(name_of(&queue_url)).ok_or_else(Error::no_queue)?;
                Ok(b"{}".to_vec())
            }
            "ListQueues" => {
                let mut urls: Vec<String> = self.queues.lock().unwrap().keys().map(|name| self.url(name)).collect();
                urls.sort();
                Ok(json!({ "QueueUrls": urls }).to_string().into_bytes())
            }
            "GetQueueAttributes" => self.attributes(body),
            "SetQueueAttributes" => {
                let OfQueue { queue_url, attributes } = serde_json::from_slice(body)?;
                self.with(&queue_url, |queue| {
                    queue.attributes.extend(texts(attributes));
                    Ok(b"{}".to_vec())
                })
            }
            "PurgeQueue" => {
                let OfQueue { queue_url, .. } = serde_json::from_slice(body)?;
                self.with(&queue_url, |queue| {
                    queue.purge();
                    Ok(b"{}".to_vec())
                })
            }
            _ => Err(Error::sender("UnsupportedOperation", "AWS.SimpleQueueService.UnsupportedOperation", action)),
        }
    }

    fn attributes(&self, body: &[u8]) -> Answer {
        let OfQueue { queue_url, .. } = serde_json::from_slice(body)?;
        let now = self.now();
        self.with(&queue_url, |queue| {
            let mut attributes = json!(queue.attributes);
            let [ready, in_flight, delayed] = queue.counts(now);
            attributes["ApproximateNumberOfMessages"] = json!(ready.to_string());
            attributes["ApproximateNumberOfMessagesNotVisible"] = json!(in_flight.to_string());
            attributes["ApproximateNumberOfMessagesDelayed"] = json!(delayed.to_string());
            if queue.fifo {
                attributes["FifoQueue"] = json!("true");
            }
            Ok(json!({ "Attributes": attributes }).to_string().into_bytes())
        })
    }

    fn put(&self, queue: &mut Queue, entry: SendEntry) -> Result<Value, Error> {
        let (sending, mut answer) = entry.sending(queue)?;
        let number = queue.send(sending, self.now(), self.wall_ms());
        answer["MessageId"] = json!(format!("00000000-0000-0000-0000-{number:012x}"));
        if queue.fifo {
            answer["SequenceNumber"] = json!(format!("{number:020}"));
        }
        Ok(answer)
    }

    fn send_one(&self, body: &[u8]) -> Answer {
        let entry: SendEntry = serde_json::from_slice(body)?;
        let url = entry.queue_url.clone();
        let answer = self.with(&url, |queue| self.put(queue, entry))?;
        self.arrived(name_of(&url)).notify_one();
        Ok(answer.to_string().into_bytes())
    }

    fn send_batch(&self, body: &[u8]) -> Answer {
        let Batch { queue_url, entries }: Batch<SendEntry> = serde_json::from_slice(body)?;
        check_batch(entries.iter().map(|entry| entry.id.as_str()))?;
        // What JSON escapes is counted too, which only refuses a little earlier than SQS would; the exact count is the bodies'.
        let raw: usize = entries.iter().map(|entry| entry.message_body.get().len() - 2).sum();
        if raw > MESSAGE_BYTES_MAX {
            let exact: usize = entries
                .iter()
                .map(|entry| serde_json::from_str::<String>(entry.message_body.get()).map_or(0, |text| text.len()))
                .sum();
            if exact > MESSAGE_BYTES_MAX {
                let query_code = "AWS.SimpleQueueService.BatchRequestTooLong";
                return Err(Error::sender(
                    "BatchRequestTooLong",
                    query_code,
                    "Batch requests cannot be longer than 1048576 bytes.",
                ));
            }
        }
        let answers: Vec<_> = self.with(&queue_url, |queue| {
            Ok(entries.into_iter().map(|mut entry| (std::mem::take(&mut entry.id), self.put(queue, entry))).collect())
        })?;
        let arrived = self.arrived(name_of(&queue_url));
        arrived.notify_one();
        Ok(batch_answer(answers))
    }

    fn handle(
        &self,
        entry: &HandleEntry,
        queue: &mut Queue,
        act: impl Fn(&mut Queue, u64, u64, Duration, Duration) -> Result<(), Stale>,
    ) -> Result<(), Error> {
        let (id, receipt) = parse_handle(&entry.receipt_handle)?;
        Ok(act(queue, id, receipt, visibility(entry.visibility_timeout.unwrap_or_default())?, self.now())?)
    }

    fn handle_one(
        &self,
        body: &[u8],
        act: impl Fn(&mut Queue, u64, u64, Duration, Duration) -> Result<(), Stale>,
    ) -> Answer {
        let entry: HandleEntry = serde_json::from_slice(body)?;
        self.with(&entry.queue_url, |queue| self.handle(&entry, queue, &act))?;
        self.arrived(name_of(&entry.queue_url)).notify_one();
        Ok(b"{}".to_vec())
    }

    fn handle_batch(
        &self,
        body: &[u8],
        act: impl Fn(&mut Queue, u64, u64, Duration, Duration) -> Result<(), Stale>,
    ) -> Answer {
        let Batch { queue_url, entries }: Batch<HandleEntry> = serde_json::from_slice(body)?;
        check_batch(entries.iter().map(|entry| entry.id.as_str()))?;
        let answers = self.with(&queue_url, |queue| {
            let answer = |entry: &HandleEntry, queue: &mut Queue| self.handle(entry, queue, &act).map(|()| json!({}));
            Ok(entries.iter().map(|entry| (entry.id.clone(), answer(entry, queue))).collect())
        })?;
        self.arrived(name_of(&queue_url)).notify_one();
        Ok(batch_answer(answers))
    }

    pub(super) async fn receive(&self, body: &[u8]) -> Answer {
        let wanted: Receive = serde_json::from_slice(body)?;
        let max = wanted.max_number_of_messages.unwrap_or(1);
        if !(1..=BATCH_MAX).contains(&max) {
            return Err(Error::invalid(
                "Value for parameter MaxNumberOfMessages is invalid. Reason: Must be between 1 and 10, if provided.",
            ));
        }
        let wait = self.with(&wanted.queue_url, |queue| {
            Ok(wanted
                .wait_time_seconds
                .map_or_else(|| queue.seconds("ReceiveMessageWaitTimeSeconds"), Duration::from_secs))
        })?;
        if wait > Duration::from_secs(WAIT_S_MAX) {
            return Err(Error::invalid(
                "Value for parameter WaitTimeSeconds is invalid. Reason: Must be >= 0 and <= 20, if provided.",
            ));
        }
        let (began, arrived) = (std::time::Instant::now(), self.arrived(name_of(&wanted.queue_url)));
        loop {
            let mut told = std::pin::pin!(arrived.notified());
            // From here on nothing that arrives is missed.
            told.as_mut().enable();
            let (answer, next_due) = self.take(&wanted, max)?;
            if let Some(answer) = answer {
                return Ok(answer);
            }
            let left = wait.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(b"{}".to_vec());
            }
            let due = next_due.map_or(left, |due| due.saturating_sub(self.now()).max(Duration::from_millis(1)));
            // Either way it looks again.
            let _ = tokio::time::timeout(left.min(due), told).await;
        }
    }

    fn take(&self, wanted: &Receive, max: usize) -> Result<(Option<Vec<u8>>, Option<Duration>), Error> {
        let (now, wall_ms) = (self.now(), self.wall_ms());
        let mut queues = self.queues.lock().unwrap();
        let queue = queues.get_mut(name_of(&wanted.queue_url)).ok_or_else(Error::no_queue)?;
        if queue.is_over_limit() {
            return Err(Error::sender("OverLimit", "OverLimit", "Too many messages in flight"));
        }
        let seen_for = wanted.visibility_timeout.map_or_else(|| Ok(queue.seconds("VisibilityTimeout")), visibility)?;
        let received = queue.receive(max, seen_for, now, wall_ms);
        let answer = (!received.handed.is_empty()).then(|| write(queue, wanted, &received.handed));
        let (next_due, more) = (queue.next_due(), queue.has_ready());
        if let Some(target) = received.to.as_deref().and_then(|name| queues.get_mut(name)) {
            received.spent.into_iter().for_each(|message| target.adopt(message, now));
        }
        drop(queues);
        if more && answer.is_some() {
            self.arrived(name_of(&wanted.queue_url)).notify_one();
        }
        Ok((answer, next_due))
    }
}

/// Written by hand: a body goes out as it came in.
fn write(queue: &Queue, wanted: &Receive, handed: &[(u64, u64)]) -> Vec<u8> {
    let asked = |name: &str| {
        wanted
            .attribute_names
            .iter()
            .chain(&wanted.message_system_attribute_names)
            .any(|asked| asked == "All" || asked == name)
    };
    let mut out = String::from("{\"Messages\":[");
    for (n, (id, receipt)) in handed.iter().enumerate() {
        let Some(message) = queue.message(*id) else { continue };
        let mut system = serde_json::Map::new();
        let mut tell = |name: &str, value: Option<String>| {
            if let Some(value) = value.filter(|_| asked(name)) {
                system.insert(name.to_owned(), Value::String(value));
            }
        };
        tell("ApproximateReceiveCount", Some(message.received.to_string()));
        tell("SentTimestamp", Some(message.sent_ms.to_string()));
        tell("ApproximateFirstReceiveTimestamp", message.first_received_ms.map(|ms| ms.to_string()));
        tell("MessageGroupId", message.group.clone());
        tell("MessageDeduplicationId", message.deduplication.clone());
        tell("SequenceNumber", queue.fifo.then(|| format!("{:020}", message.sequence)));
        if n > 0 {
            out.push(',');
        }
        out.push_str(&format!(
            "{{\"MessageId\":\"00000000-0000-0000-0000-{id:012x}\",\"ReceiptHandle\":\"fast-{id}-{receipt}\",\"MD5OfBody\":\"{}\",\"Body\":{}",
            message.md5,
            message.body.get()
        ));
        if !system.is_empty() {
            out.push_str(&format!(",\"Attributes\":{}", Value::Object(system)));
        }
        if let Some((raw, sum)) = message.attributes.as_ref().filter(|_| !wanted.message_attribute_names.is_empty()) {
            out.push_str(&format!(",\"MD5OfMessageAttributes\":\"{sum}\",\"MessageAttributes\":{}", raw.get()));
        }
        out.push('}');
    }
    out.push_str("]}");
    out.into_bytes()
}
