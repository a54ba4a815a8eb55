//! API keys: who a caller is and what that caller may do.

use serde::{Deserialize, Serialize};

use super::ids::{KeyId, Owner};
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
    pub owner: Owner,
    pub scopes: Vec<Scope>,
    /// SHA-256 of the secret; never in a listing.
    #[serde(skip_serializing, default = "no_digest")]
    pub secret_sha256: [u8; 32],
    pub created_at: Timestamp,
}

fn no_digest() -> [u8; 32] {
    [0; 32]
}

impl Key {
    /// Whether this key carries `scope`, directly or by implication.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes
            .iter()
            .any(|held| *held == scope || *held == Scope::Admin || (*held == Scope::Deploy && scope == Scope::Read))
    }

    pub fn is_admin(&self) -> bool {
        self.allows(Scope::Admin)
    }
}
