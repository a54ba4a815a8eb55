//! Who is calling, and what the caller may do.
//!
//! ```text
//! credential ─ SHA-256 ─▶ cache ── known ──▶ Principal                                 (every call but the first)
//!                           └─ unknown ─▶ failures of its address ─▶ keys: the store
//!                                                                 └▶ tokens: signature, claims ─▶ key set
//! ```

mod addresses;
mod admin_key;
mod authenticator;
mod failures;
mod key_set;
mod tokens;

use std::sync::Arc;

use http::HeaderMap;
use http::header::AUTHORIZATION;
use sha2::{Digest as _, Sha256};

use crate::domain::ids::{FunctionId, InvocationId, Owner};
use crate::domain::invocation::StoredRecord;
use crate::domain::key::Scope;
use crate::domain::principal::Principal;

use super::error::{ApiError, Code};

pub use addresses::Proxies;
pub use admin_key::{AdminKeyError, ensure_admin_key, new_key};
pub use authenticator::Authenticator;
pub use tokens::{TokenKeysError, Tokens};

pub const ADMIN_OWNER: &str = "admin";

/// Which of a caller's rights a look at one invocation needs: whoever may invoke may follow what was invoked.
pub const FOLLOW: [Scope; 2] = [Scope::Read, Scope::Invoke];

/// The caller of one request.
#[derive(Clone, Debug)]
pub struct Caller {
    pub principal: Arc<Principal>,
    pub request_id: InvocationId,
}

impl Caller {
    pub fn require(&self, scope: Scope) -> Result<(), ApiError> {
        self.require_any(&[scope])
    }

    pub fn require_any(&self, scopes: &[Scope]) -> Result<(), ApiError> {
        if scopes.iter().any(|scope| self.principal.allows(*scope)) {
            return Ok(());
        }
        let names: Vec<_> = scopes.iter().map(|scope| scope.as_str()).collect();
        Err(ApiError::new(
            Code::Forbidden,
            format!("this needs a key with the scope {}; ask an admin for one", names.join(" or ")),
        ))
    }

    /// An access key runs its function and follows what it ran; what shows or ends more than one call is not for it.
    pub fn require_more_than_access(&self) -> Result<(), ApiError> {
        if self.principal.function.is_none() {
            return Ok(());
        }
        Err(ApiError::new(
            Code::Forbidden,
            "an access key may run its function and follow what it ran, and nothing else; use a key of the owner's",
        ))
    }

    pub fn owner(&self) -> &Owner {
        &self.principal.owner
    }

    /// What others own does not exist for a caller, unless it is an admin.
    pub fn sees(&self, owner: &Owner, function: FunctionId) -> bool {
        self.principal.sees(owner, function)
    }

    pub fn sees_record(&self, stored: &StoredRecord) -> bool {
        self.sees(&stored.owner, stored.record.function_id)
    }

    /// Whose things a listing shows; `None`: everybody's.
    pub fn listing_owner(&self) -> Option<&Owner> {
        (!self.principal.is_admin()).then_some(&self.principal.owner)
    }
}

/// The token of `Authorization: Bearer …`.
pub fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let (scheme, token) = headers.get(AUTHORIZATION)?.as_bytes().split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| token.trim_ascii())
}

pub fn hash(secret: &[u8]) -> [u8; 32] {
    Sha256::digest(secret).into()
}
