//! Signers of tokens: what an identity provider would be, with keys of its own.

use aws_lc_rs::encoding::AsDer;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair, RSA_PKCS1_SHA256, RsaKeyPair};
use aws_lc_rs::{hmac, rand};
use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};

pub enum Signer {
    /// HS256.
    Secret(Vec<u8>),
    /// RS256.
    Rsa(Box<RsaKeyPair>),
    /// ES256.
    Curve(EcdsaKeyPair),
    /// `none`: no signature at all.
    Nobody,
}

impl Signer {
    pub fn rsa() -> Self {
        Signer::Rsa(Box::new(RsaKeyPair::generate(KeySize::Rsa2048).expect("an RSA key")))
    }

    pub fn curve() -> Self {
        Signer::Curve(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a P-256 key"))
    }

    pub fn algorithm(&self) -> &'static str {
        match self {
            Signer::Secret(_) => "HS256",
            Signer::Rsa(_) => "RS256",
            Signer::Curve(_) => "ES256",
            Signer::Nobody => "none",
        }
    }

    fn sign(&self, message: &[u8]) -> Vec<u8> {
        let random = rand::SystemRandom::new();
        match self {
            Signer::Secret(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec(),
            Signer::Rsa(key) => {
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).expect("a signature");
                signature
            }
            Signer::Curve(key) => key.sign(&random, message).expect("a signature").as_ref().to_vec(),
            Signer::Nobody => Vec::new(),
        }
    }

    /// The token of these claims, under a header that names this key.
    pub fn token(&self, kid: Option<&str>, claims: &Value) -> String {
        let mut header = json!({ "typ": "JWT", "alg": self.algorithm() });
        if let Some(kid) = kid {
            header["kid"] = kid.into();
        }
        self.token_under(&header, claims)
    }

    /// The same under any header at all.
    pub fn token_under(&self, header: &Value, claims: &Value) -> String {
        let encode = |part: &Value| BASE64.encode(part.to_string());
        let message = format!("{}.{}", encode(header), encode(claims));
        let signature = BASE64.encode(self.sign(message.as_bytes()));
        format!("{message}.{signature}")
    }

    /// The public key as a key set has it.
    pub fn jwk(&self, kid: &str) -> Value {
        match self {
            Signer::Rsa(key) => {
                let public = key.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                let encode = |number: &[u8]| BASE64.encode(number);
                json!({
                    "kty": "RSA", "kid": kid, "use": "sig", "alg": "RS256",
                    "n": encode(n.big_endian_without_leading_zero()), "e": encode(e.big_endian_without_leading_zero()),
                })
            }
            Signer::Curve(key) => {
                // An uncompressed point: 4, x, y.
                let point = key.public_key().as_ref();
                let (x, y) = (BASE64.encode(&point[1..33]), BASE64.encode(&point[33..65]));
                json!({ "kty": "EC", "crv": "P-256", "kid": kid, "x": x, "y": y })
            }
            Signer::Secret(_) | Signer::Nobody => panic!("there is nothing public here"),
        }
    }

    /// The public key as DER: what an attacker would use as a secret.
    pub fn public_der(&self) -> Vec<u8> {
        match self {
            Signer::Rsa(key) => key.public_key().as_der().expect("DER").as_ref().to_vec(),
            Signer::Curve(key) => key.public_key().as_der().expect("DER").as_ref().to_vec(),
            Signer::Secret(_) | Signer::Nobody => panic!("there is nothing public here"),
        }
    }
}

/// A set of public keys.
pub fn key_set(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}
