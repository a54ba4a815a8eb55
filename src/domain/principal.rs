//! Who calls: what a key or a token was found to stand for.

use std::sync::Arc;

use super::ids::{FunctionId, KeyId, Owner};
use super::key::{Key, Scope};

/// By what a caller was recognised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Credential {
    Key {
        id: KeyId,
        name: Arc<str>,
    },
    /// A signed token of somebody else's, for this subject.
    Token {
        subject: Arc<str>,
    },
}

/// A caller and its rights. What calls is never more than this says, whatever it was recognised by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    pub owner: Owner,
    pub scopes: Vec<Scope>,
    /// The one function that there is for this caller; `None`: all of its owner's.
    pub function: Option<FunctionId>,
    pub credential: Credential,
    /// Whose allowance of calls a call is taken from: a digest, so that it can't be read back.
    pub allowance: [u8; 32],
}

impl Principal {
    pub fn of_key(key: &Key) -> Self {
        Self {
            owner: key.owner.clone(),
            scopes: key.scopes.clone(),
            function: key.function,
            credential: Credential::Key { id: key.id, name: key.name.as_str().into() },
            allowance: key.secret_sha256,
        }
    }

    /// Whether it has `scope`, directly or by implication.
    pub fn allows(&self, scope: Scope) -> bool {
        self.scopes.iter().any(|held| held.implies(scope))
    }

    pub fn is_admin(&self) -> bool {
        self.function.is_none() && self.allows(Scope::Admin)
    }

    /// What others own does not exist for a caller, unless it is an admin; nor, for an access key, any function but its own.
    pub fn sees(&self, owner: &Owner, function: FunctionId) -> bool {
        match self.function {
            Some(only) => only == function && self.owner == *owner,
            None => self.owner == *owner || self.is_admin(),
        }
    }

    pub fn key_id(&self) -> Option<KeyId> {
        match self.credential {
            Credential::Key { id, .. } => Some(id),
            Credential::Token { .. } => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn principal(owner: &str, scopes: &[Scope], function: Option<u128>) -> Principal {
        Principal {
            owner: Owner::new(owner),
            scopes: scopes.to_vec(),
            function: function.map(|n| FunctionId(Uuid::from_u128(n))),
            credential: Credential::Token { subject: "s".into() },
            allowance: [0; 32],
        }
    }

    #[test]
    fn a_principal_sees_its_owner_s_things_and_an_access_key_one_function() {
        let (f, g) = (FunctionId(Uuid::from_u128(1)), FunctionId(Uuid::from_u128(2)));
        let (ann, bob) = (Owner::new("ann"), Owner::new("bob"));
        let anns = principal("ann", &[Scope::Read], None);
        assert!(anns.sees(&ann, f) && anns.sees(&ann, g) && !anns.sees(&bob, f));
        let admin = principal("admin", &[Scope::Admin], None);
        assert!(admin.sees(&ann, f) && admin.sees(&bob, g) && admin.allows(Scope::Invoke));
        let access = principal("ann", &[Scope::Invoke], Some(1));
        assert!(access.sees(&ann, f) && !access.sees(&ann, g) && !access.sees(&bob, f));
        // Whatever else such a key were given, it stays bound.
        let bound = principal("ann", &[Scope::Admin], Some(1));
        assert!(!bound.is_admin() && !bound.sees(&ann, g) && !bound.sees(&bob, f));
    }

    #[test]
    fn deploy_implies_read_and_nothing_else() {
        let may = |scope| Scope::ALL.map(|wanted| principal("a", &[scope], None).allows(wanted));
        assert_eq!(may(Scope::Admin), [true; 4]);
        assert_eq!(may(Scope::Deploy), [false, true, false, true]);
        assert_eq!(may(Scope::Invoke), [false, false, true, false]);
        assert_eq!(may(Scope::Read), [false, false, false, true]);
    }
}
