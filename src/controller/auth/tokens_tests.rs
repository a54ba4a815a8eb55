//! Tokens of every kind that must be believed, and of every kind that must not.

use async_trait::async_trait;
use serde_json::json;

use self::signer::{Signer, key_set};
use super::*;

#[path = "../../../tests/support/signer.rs"]
mod signer;

const NOW_S: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret of more than thirty-two bytes";

struct Fixed(String);

#[async_trait]
impl KeySetSource for Fixed {
    async fn fetch(&self) -> Result<Vec<u8>, KeySetError> {
        Ok(self.0.clone().into_bytes())
    }
}

fn config() -> Jwt {
    Jwt {
        enabled: true,
        secret: String::from_utf8(SECRET.to_vec()).unwrap(),
        issuer: "https://issuer".into(),
        audience: "faasd".into(),
        ..Jwt::default()
    }
}

fn tokens(config: &Jwt, keys: &[Value]) -> Tokens {
    Tokens::new(config, Some(Arc::new(Fixed(key_set(keys))))).unwrap().unwrap()
}

fn secret() -> Signer {
    Signer::Secret(SECRET.to_vec())
}

fn claims(changes: Value) -> Value {
    let mut claims = json!({
        "iss": "https://issuer", "aud": "faasd", "sub": "ann", "exp": NOW_S + 100, "scope": "invoke read openid",
    });
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(name)),
            value => claims[name] = value.clone(),
        }
    }
    claims
}

async fn ask(tokens: &Tokens, token: &str) -> Result<Verified, Disbelief> {
    assert!(Tokens::is_token(token.as_bytes()));
    tokens.verify(token.as_bytes(), Timestamp(NOW_S * 1000), Duration::ZERO).await
}

#[tokio::test]
async fn a_token_of_each_algorithm_stands_for_its_owner_and_scopes() {
    let (rsa, curve) = (Signer::rsa(), Signer::curve());
    let tokens = tokens(&config(), &[rsa.jwk("r"), curve.jwk("c")]);
    for (signer, kid) in [(&secret(), None), (&rsa, Some("r")), (&curve, Some("c")), (&rsa, None), (&curve, None)] {
        let verified = ask(&tokens, &signer.token(kid, &claims(json!({})))).await;
        let Verified { principal, until } = verified.unwrap_or_else(|why| panic!("{}: {why}", signer.algorithm()));
        assert_eq!(&*principal.owner.0, "jwt:ann");
        assert_eq!(principal.scopes, [Scope::Invoke, Scope::Read]);
        assert_eq!(until, Timestamp((NOW_S + 160) * 1000));
        assert_eq!(principal.credential, Credential::Token { subject: "ann".into() });
    }
}

#[tokio::test]
async fn the_key_decides_the_algorithm_and_not_the_token() {
    let (rsa, curve) = (Signer::rsa(), Signer::curve());
    let tokens = tokens(&config(), &[rsa.jwk("r"), curve.jwk("c")]);
    let none = |alg: &str| Signer::Nobody.token_under(&json!({ "alg": alg, "kid": "r" }), &claims(json!({})));
    // The public key as a secret: the classical confusion.
    let confused =
        |signer: &Signer, kid: &str| Signer::Secret(signer.public_der()).token(Some(kid), &claims(json!({})));
    let crossed = rsa.token_under(&json!({ "alg": "ES256", "kid": "c" }), &claims(json!({})));
    let misnamed = secret().token_under(&json!({ "alg": "RS256", "kid": "r" }), &claims(json!({})));
    let own_key = curve.token_under(&json!({ "alg": "ES256", "jwk": Signer::curve().jwk("c") }), &claims(json!({})));
    assert!(ask(&tokens, &own_key).await.is_ok(), "a key in the header is not looked at");
    for token in [
        none("none"),
        none("None"),
        none("HS256"),
        none("RS256"),
        none("HS512"),
        confused(&rsa, "r"),
        confused(&curve, "c"),
        crossed,
        misnamed,
        Signer::rsa().token(Some("r"), &claims(json!({}))),
        Signer::curve().token_under(&json!({ "alg": "ES256", "jwk": Signer::curve().jwk("x") }), &claims(json!({}))),
        rsa.token(Some("unknown"), &claims(json!({}))),
        secret().token_under(&json!({ "alg": "HS256", "crit": ["b64"], "b64": false }), &claims(json!({}))),
        Signer::Secret(Vec::new()).token(None, &claims(json!({}))),
    ] {
        assert!(ask(&tokens, &token).await.is_err(), "{token}");
    }
    // A signature of another token, and one byte less.
    let (a, b) = (secret().token(None, &claims(json!({}))), secret().token(None, &claims(json!({ "sub": "eve" }))));
    let mixed = format!("{}.{}", b.rsplit_once('.').unwrap().0, a.rsplit_once('.').unwrap().1);
    assert!(ask(&tokens, &mixed).await.is_err());
    assert!(ask(&tokens, &a[..a.len() - 2]).await.is_err());
}

#[tokio::test]
async fn a_token_that_is_not_for_now_or_not_for_here_is_not_believed() {
    let tokens = tokens(&config(), &[]);
    let wrong = [
        json!({ "exp": NOW_S - 61 }),
        json!({ "exp": null }),
        json!({ "exp": "tomorrow" }),
        json!({ "exp": -1 }),
        json!({ "nbf": NOW_S + 61 }),
        json!({ "nbf": "now" }),
        json!({ "iss": "https://other" }),
        json!({ "iss": null }),
        json!({ "aud": "other" }),
        json!({ "aud": ["other", "another"] }),
        json!({ "aud": null }),
        json!({ "sub": null }),
        json!({ "sub": "" }),
        json!({ "sub": 7 }),
        json!({ "sub": "two words" }),
        json!({ "sub": "line\nfeed" }),
        json!({ "sub": "\u{202e}nna" }),
        json!({ "sub": "x".repeat(125) }),
    ];
    for change in wrong {
        let token = secret().token(None, &claims(change.clone()));
        assert!(ask(&tokens, &token).await.is_err(), "{change}");
    }
    let right = [
        json!({ "exp": NOW_S - 59 }),
        json!({ "exp": NOW_S as f64 + 0.5 }),
        json!({ "exp": 1e300 }),
        json!({ "nbf": NOW_S + 59 }),
        json!({ "aud": ["other", "faasd"] }),
        json!({ "sub": "auth0|5f7c8ec7c33c6c004bbafe82" }),
        json!({ "sub": "x".repeat(124) }),
    ];
    for change in right {
        let token = secret().token(None, &claims(change.clone()));
        assert!(ask(&tokens, &token).await.is_ok(), "{change}");
    }
    let long = secret().token(None, &claims(json!({ "padding": "x".repeat(TOKEN_BYTES_MAX) })));
    assert!(ask(&tokens, &long).await.is_err());
}

#[tokio::test]
async fn what_is_no_token_is_not_believed() {
    let tokens = tokens(&config(), &[]);
    for text in ["..", "a.b.c", "e30.e30.", "e30.e30.e30", ".e30.", "\u{0}.\u{0}.\u{0}", "W10.W10.W10"] {
        assert!(ask(&tokens, text).await.is_err(), "{text}");
    }
    let deep = encoded(&format!("{}1{}", "[".repeat(3000), "]".repeat(3000)));
    assert!(ask(&tokens, &format!("{deep}.{deep}.x")).await.is_err());
}

fn encoded(text: &str) -> String {
    use base64::Engine;
    base64::prelude::BASE64_URL_SAFE_NO_PAD.encode(text)
}

#[tokio::test]
async fn scopes_are_mapped_and_never_more_than_allowed() {
    let scopes = async |config: &Jwt, change: Value| {
        let token = secret().token(None, &claims(change));
        ask(&tokens(config, &[]), &token).await.map(|verified| verified.principal.scopes).unwrap()
    };
    use Scope::{Admin, Deploy, Invoke, Read};
    let plain = config();
    assert_eq!(scopes(&plain, json!({ "scope": "admin deploy" })).await, [Deploy]);
    assert_eq!(scopes(&plain, json!({ "scope": null, "scopes": ["read", "invoke", 7] })).await, [Invoke, Read]);
    assert_eq!(scopes(&plain, json!({ "scope": null })).await, []);
    assert_eq!(scopes(&plain, json!({ "scope": { "read": true } })).await, []);
    let mapped = Jwt {
        scope_claim: "permissions".into(),
        scope_map: vec!["call:functions=invoke".into(), "a=b=read".into()],
        scopes_default: vec!["read".into(), "admin".into()],
        ..config()
    };
    assert_eq!(scopes(&mapped, json!({ "permissions": "call:functions a=b" })).await, [Invoke, Read]);
    assert_eq!(scopes(&mapped, json!({})).await, [Read], "the default is bounded too");
    let admins = Jwt { scopes_allowed: vec!["admin".into()], ..config() };
    assert_eq!(scopes(&admins, json!({ "scope": "admin read" })).await, [Admin]);
}

#[tokio::test]
async fn no_token_is_the_admin_unless_tokens_may_be() {
    let owner = async |config: &Jwt, sub: &str| {
        let token = secret().token(None, &claims(json!({ "sub": sub })));
        ask(&tokens(config, &[]), &token).await.map(|verified| verified.principal.owner.to_string()).ok()
    };
    assert_eq!(owner(&config(), "admin").await.as_deref(), Some("jwt:admin"));
    let bare = Jwt { owner_prefix: String::new(), ..config() };
    assert_eq!(owner(&bare, "admin").await, None);
    assert_eq!(owner(&bare, "ann").await.as_deref(), Some("ann"));
    let admins = Jwt { scopes_allowed: vec!["admin".into()], ..bare };
    assert_eq!(owner(&admins, "admin").await.as_deref(), Some("admin"));
}

#[test]
fn a_secret_s_file_is_read_without_its_line_end_and_must_be_long() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("secret");
    std::fs::write(&path, [SECRET, b"\n"].concat()).unwrap();
    assert_eq!(read_secret(&path).unwrap(), SECRET);
    std::fs::write(&path, "short\n").unwrap();
    assert!(matches!(read_secret(&path), Err(TokenKeysError::Short { .. })));
    assert!(matches!(read_secret(&dir.path().join("none")), Err(TokenKeysError::File { .. })));
}
