//! API keys: who a caller is and what that caller may do.

use serde::{Deserialize, Serialize};

use super::ids::{FunctionId, KeyId, Owner};
use super::time::Timestamp;

/// One right. `Admin` holds them all and sees every owner's things.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Keys, workers, drain; implies all others.
    Admin,
    /// Create, update, delete functions; implies `Read`.
    Deploy,
    /// Run functions and follow what one ran.
    Invoke,
    /// List and look.
    Read,
}

impl Scope {
    pub const ALL: [Scope; 4] = [Scope::Admin, Scope::Deploy, Scope::Invoke, Scope::Read];

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|scope| scope.as_str() == text)
    }

    /// Whether whoever holds this right has `wanted` as well.
    pub fn implies(self, wanted: Scope) -> bool {
        self == wanted || self == Scope::Admin || (self == Scope::Deploy && wanted == Scope::Read)
    }

    pub fn as_str(self) -> &'static str {
        match self {
            Scope::Admin => "admin",
            Scope::Deploy => "deploy",
            Scope::Invoke => "invoke",
            Scope::Read => "read",
        }
    }
}

/// What is kept of a key: never the secret, only its SHA-256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Key {
    pub id: KeyId,
    pub name: String,
    /// In the maker's own words; may be empty.
    pub description: String,
    pub owner: Owner,
    pub scopes: Vec<Scope>,
    /// Where it is an access key: the one function that it may invoke.
    #[serde(rename = "functionId")]
    pub function: Option<FunctionId>,
    /// SHA-256 of the secret; never in a listing.
    #[serde(skip_serializing, default = "no_digest")]
    pub secret_sha256: [u8; 32],
    pub created_at: Timestamp,
    /// From then on it is as unknown as one that never was; `None`: it lasts until it is revoked.
    pub expires_at: Option<Timestamp>,
    /// About: written behind, and not at every use.
    pub last_used_at: Option<Timestamp>,
}

fn no_digest() -> [u8; 32] {
    [0; 32]
}

impl Key {
    pub fn is_expired(&self, now: Timestamp) -> bool {
        self.expires_at.is_some_and(|at| at <= now)
    }
}
