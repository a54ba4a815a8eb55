//! A job as an SQS message, and back: one line of JSON, then the payload as it is. Pure.
//!
//! The payload stands outside the JSON, so that it is neither parsed nor escaped; what is no text that SQS takes is in base64.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::domain::ids::{Digest, FunctionId, InvocationId, Owner, VersionKey};
use crate::domain::job::{Job, Payload};
use crate::domain::time::Timestamp;

/// Of this form of a message. A worker leaves what it can't read to newer ones.
const FORM: u32 = 1;

/// What a message says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub job: Job,
    /// Of the job, before this message: it was sent anew when a lease that was no attempt was given back.
    pub attempts: u32,
    /// A delay that SQS can't keep for a message that is new.
    pub not_before: Option<Timestamp>,
    /// The payload was too large for a message and lies in the artifact store, unknown to whoever sent the job.
    pub beside: Option<Digest>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Head {
    form: u32,
    invocation: InvocationId,
    owner: Owner,
    function: FunctionId,
    version: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    model_id: Option<String>,
    accepted_ms: u64,
    #[serde(default, skip_serializing_if = "is_zero")]
    attempts: u32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    not_before_ms: Option<u64>,
    payload: Place,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
enum Place {
    /// Follows as it is.
    Text,
    /// Follows in base64.
    Base64,
    Stored(Digest),
    Beside(Digest),
}

/// XML's characters, which are all that SQS takes.
fn is_allowed(c: char) -> bool {
    matches!(c, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..)
}

fn plain_text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok().filter(|text| text.chars().all(is_allowed))
}

impl Message {
    pub fn new(job: Job) -> Self {
        Self { job, attempts: 0, not_before: None, beside: None }
    }

    pub fn encode(&self) -> String {
        let Job { invocation, owner, version, payload, model_id, accepted_at } = &self.job;
        let (place, text) = match (self.beside, payload) {
            (Some(digest), _) => (Place::Beside(digest), None),
            (None, Payload::Stored(digest)) => (Place::Stored(*digest), None),
            (None, Payload::Inline(bytes)) => match plain_text(bytes) {
                Some(text) => (Place::Text, Some(text.into())),
                None => (Place::Base64, Some(std::borrow::Cow::from(STANDARD.encode(bytes)))),
            },
        };
        let head = Head {
            form: FORM,
            invocation: *invocation,
            owner: owner.clone(),
            function: version.function,
            version: version.number,
            model_id: model_id.clone(),
            accepted_ms: accepted_at.as_millis(),
            attempts: self.attempts,
            not_before_ms: self.not_before.map(Timestamp::as_millis),
            payload: place,
        };
        // Every key is a name and every value a number or a text: nothing of it can fail.
        let mut line = serde_json::to_string(&head).unwrap_or_default();
        // Inside JSON's strings, where else they can't be, these two may be spelled so.
        if !line.chars().all(is_allowed) {
            line = line.replace('\u{fffe}', "\\ufffe").replace('\u{ffff}', "\\uffff");
        }
        if let Some(text) = text {
            line.push('\n');
            line.push_str(&text);
        }
        line
    }

    /// The error is a sentence without anything of the message in it.
    pub fn decode(body: &str) -> Result<Self, String> {
        let (line, rest) = body.split_once('\n').map_or((body, None), |(line, rest)| (line, Some(rest)));
        let head: Head = serde_json::from_str(line).map_err(|error| format!("its head can't be read: {error}"))?;
        if head.form != FORM {
            return Err(format!("it has form {}, and this faasd reads form {FORM}", head.form));
        }
        let (payload, beside) = match (head.payload, rest) {
            (Place::Text, Some(text)) => (Payload::Inline(Bytes::copy_from_slice(text.as_bytes())), None),
            (Place::Base64, Some(text)) => {
                let bytes = STANDARD.decode(text).map_err(|_| "its payload is no base64".to_owned())?;
                (Payload::Inline(Bytes::from(bytes)), None)
            }
            (Place::Stored(digest), None) => (Payload::Stored(digest), None),
            (Place::Beside(digest), None) => (Payload::Stored(digest), Some(digest)),
            _ => return Err("its payload is not where its head says".to_owned()),
        };
        let job = Job {
            invocation: head.invocation,
            owner: head.owner,
            version: VersionKey { function: head.function, number: head.version },
            payload,
            model_id: head.model_id,
            accepted_at: Timestamp(head.accepted_ms),
        };
        Ok(Self { job, attempts: head.attempts, not_before: head.not_before_ms.map(Timestamp), beside })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use uuid::Uuid;

    fn message(payload: Payload) -> Message {
        let version = VersionKey { function: FunctionId(Uuid::from_u128(2)), number: 3 };
        let invocation = InvocationId(Uuid::from_u128(1));
        let (owner, accepted_at) = (Owner::new("ann"), Timestamp(1_763_776_800_123));
        Message::new(Job { invocation, owner, version, payload, model_id: None, accepted_at })
    }

    #[test]
    fn a_payload_of_text_is_sent_as_it_is() {
        let body = message(Payload::Inline(Bytes::from_static(b"{\"n\":\n\"\\u0000\"}"))).encode();
        assert!(body.ends_with("\n{\"n\":\n\"\\u0000\"}"), "{body}");
    }

    #[test]
    fn what_is_no_message_of_ours_is_refused_in_words() {
        let other_form = message(Payload::Inline(Bytes::new())).encode().replace("\"form\":1", "\"form\":2");
        for body in ["", "hello", "{}\n1", "{\"form\":1}", &other_form] {
            assert!(Message::decode(body).is_err(), "{body}");
        }
        let cut = message(Payload::Inline(Bytes::from_static(b"1"))).encode();
        assert!(Message::decode(cut.split('\n').next().unwrap()).is_err());
    }

    proptest! {
        #[test]
        fn a_message_reads_what_it_writes(
            bytes in proptest::collection::vec(any::<u8>(), 0..200),
            text in any::<String>(),
            owner in any::<String>(),
            model in proptest::option::of(any::<String>()),
            attempts in any::<u32>(),
            not_before in proptest::option::of(any::<u64>()),
            stored in proptest::option::of(any::<[u8; 32]>()),
            is_text in any::<bool>(),
        ) {
            let inline = if is_text { Bytes::from(text) } else { Bytes::from(bytes) };
            let mut sent = message(stored.map_or(Payload::Inline(inline), |digest| Payload::Stored(Digest(digest))));
            sent.job.owner = Owner::new(&owner);
            sent.job.model_id = model;
            (sent.attempts, sent.not_before) = (attempts, not_before.map(Timestamp));
            let body = sent.encode();
            prop_assert!(body.chars().all(is_allowed));
            prop_assert_eq!(Message::decode(&body), Ok(sent));
        }

        #[test]
        fn no_text_brings_the_reader_down(body in any::<String>()) {
            let _ = Message::decode(&body);
        }
    }
}
