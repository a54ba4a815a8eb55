//! The audit log: who changed what, when, from where, and what became of it. No secret, payload or value of an environment is in it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::ids::{InvocationId, KeyId};
use super::principal::{Credential, Principal};
use super::time::Timestamp;

/// What was done, or tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    #[serde(rename = "function.create")]
    FunctionCreate,
    #[serde(rename = "function.update")]
    FunctionUpdate,
    #[serde(rename = "function.delete")]
    FunctionDelete,
    #[serde(rename = "key.create")]
    KeyCreate,
    #[serde(rename = "key.revoke")]
    KeyRevoke,
    #[serde(rename = "deadLetter.replay")]
    DeadLetterReplay,
    #[serde(rename = "invocation.cancel")]
    InvocationCancel,
    #[serde(rename = "worker.cordon")]
    WorkerCordon,
    #[serde(rename = "worker.uncordon")]
    WorkerUncordon,
    #[serde(rename = "worker.drain")]
    WorkerDrain,
    /// A change that has no name of its own.
    #[serde(rename = "change")]
    Change,
    /// A look at something, logged where it was refused.
    #[serde(rename = "access")]
    Access,
    /// A credential that was not accepted.
    #[serde(rename = "authenticate")]
    Authenticate,
    #[serde(rename = "node.start")]
    NodeStart,
    #[serde(rename = "node.drain")]
    NodeDrain,
    /// Refusals that were counted rather than written one by one.
    #[serde(rename = "refusals")]
    Refusals,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Outcome {
    Done,
    /// Allowed, but it could not be done; nothing changed unless `code` says otherwise.
    Failed,
    /// Not allowed.
    Refused,
}

impl Outcome {
    pub const ALL: [Outcome; 3] = [Outcome::Done, Outcome::Failed, Outcome::Refused];

    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Done => "done",
            Outcome::Failed => "failed",
            Outcome::Refused => "refused",
        }
    }
}

/// What it was done to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Object {
    pub id: Option<String>,
    pub name: Option<String>,
    pub owner: Option<String>,
    pub version: Option<u32>,
}

/// One line of the log. What is not known is left out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Entry {
    pub at: Timestamp,
    pub action: Action,
    pub outcome: Outcome,
    /// The error code that the caller got.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub code: Option<String>,
    /// Whose rights it was done with.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_id: Option<KeyId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub key_name: Option<String>,
    /// Of a token.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub subject: Option<String>,
    /// The client's address, as far as the proxies in between are trusted.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub request_id: Option<InvocationId>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object_name: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub object_owner: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub version: Option<u32>,
    /// How many things this line stands for, where that is not one.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub count: Option<u64>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty", default)]
    pub detail: BTreeMap<String, String>,
}

impl Entry {
    pub fn new(at: Timestamp, action: Action, outcome: Outcome) -> Self {
        Self {
            at,
            action,
            outcome,
            code: None,
            owner: None,
            key_id: None,
            key_name: None,
            subject: None,
            address: None,
            request_id: None,
            object_id: None,
            object_name: None,
            object_owner: None,
            version: None,
            count: None,
            detail: BTreeMap::new(),
        }
    }

    pub fn by(mut self, principal: &Principal) -> Self {
        self.owner = Some(principal.owner.to_string());
        match &principal.credential {
            Credential::Key { id, name } => (self.key_id, self.key_name) = (Some(*id), Some(name.to_string())),
            Credential::Token { subject } => self.subject = Some(subject.to_string()),
        }
        self
    }

    pub fn to(mut self, object: Object) -> Self {
        (self.object_id, self.object_name) = (object.id, object.name);
        (self.object_owner, self.version) = (object.owner, object.version);
        self
    }
}

/// An entry in its place in the log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Recorded {
    /// Counts from 1 without a gap, over all files: a line that is missing shows.
    pub seq: u64,
    #[serde(flatten)]
    pub entry: Entry,
}
