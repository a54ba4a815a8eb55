//! Tokens signed elsewhere, on the real daemon: from a secret's file, a key set's file, and a key set behind a URL.

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use crate::support::client::{Client, Request};
use crate::support::daemon::{Builder, Daemon};
use crate::support::platform::{ECHO, page};
use crate::support::signer::{Signer, key_set};

const SECRET: &[u8] = b"a secret of more than thirty-two bytes";

fn now_s() -> u64 {
    std::time::UNIX_EPOCH.elapsed().expect("after 1970").as_secs()
}

fn claims(sub: &str, scope: &str) -> Value {
    json!({ "iss": "https://issuer", "aud": "faasd", "sub": sub, "scope": scope, "exp": now_s() + 300 })
}

fn with(client: &Client, token: &str, path: &str) -> Request {
    client.without_key().get(path).header("authorization", &format!("Bearer {token}"))
}

fn post_with(client: &Client, token: &str, path: &str, body: &Value) -> Request {
    client.without_key().post(path, body).header("authorization", &format!("Bearer {token}"))
}

/// Tokens by this secret's file, and whatever else `builder` says.
fn accepting(builder: Builder, secret: &Path) -> Builder {
    fs::write(secret, SECRET).expect("a file");
    builder
        .set("AUTH__JWT__ENABLED", true)
        .set("AUTH__JWT__SECRET_FILE", secret.display())
        .set("AUTH__JWT__ISSUER", "https://issuer")
        .set("AUTH__JWT__AUDIENCE", "faasd")
}

#[tokio::test]
async fn a_token_deploys_runs_and_sees_what_its_owner_has() {
    let dir = tempfile::tempdir().expect("a directory");
    let daemon = accepting(Builder::default(), &dir.path().join("secret")).start().await;
    let signer = Signer::Secret(SECRET.to_vec());
    let ann = signer.token(None, &claims("ann", "deploy invoke"));
    let bob = signer.token(None, &claims("bob", "deploy invoke"));
    let body = crate::support::platform::inline("f", "python", ECHO);
    let made = post_with(&daemon, &ann, "/functions", &body).send().await.expect(201);
    assert_eq!(made["owner"], "jwt:ann");
    let call = json!({ "name": "f", "inputData": 7 });
    for _ in 0..3 {
        assert_eq!(post_with(&daemon, &ann, "/run", &call).send().await.expect(200)["result"], 7);
    }
    post_with(&daemon, &bob, "/run", &call).send().await.refused(404);
    assert!(page(&with(&daemon, &bob, "/functions").send().await.expect(200)).0.is_empty());

    let reader = signer.token(None, &claims("ann", "read"));
    with(&daemon, &reader, "/functions/f").send().await.expect(200);
    post_with(&daemon, &reader, "/run", &call).send().await.refused(403);
    // Neither the name nor the scope makes an admin, and a token for nothing may do nothing.
    let admin = signer.token(None, &claims("admin", "admin"));
    with(&daemon, &admin, "/keys").send().await.refused(403);
    with(&daemon, &admin, "/functions").send().await.refused(403);
    let nothing =
        signer.token(None, &json!({ "iss": "https://issuer", "aud": "faasd", "sub": "ann", "exp": now_s() + 300 }));
    with(&daemon, &nothing, "/functions").send().await.refused(403);
    // A key of an owner `ann` is not this Ann.
    let key = daemon.caller("ann", &["read"]).await;
    key.get("/functions/f").send().await.refused(404);
    // Keys go on working as bearers.
    with(&daemon, daemon.key(), "/functions").send().await.expect(200);
    // The log says by whom.
    let audited = page(&daemon.get("/audit").send().await.expect(200)).0;
    let deployed = audited.iter().find(|entry| entry["action"] == "function.create").expect("the deployment");
    assert_eq!((&deployed["subject"], &deployed["owner"]), (&json!("ann"), &json!("jwt:ann")));
    assert!(!daemon.log().contains(&ann));
}

#[tokio::test]
async fn tokens_that_must_not_be_believed_are_401() {
    let dir = tempfile::tempdir().expect("a directory");
    let builder = accepting(Daemon::with("AUTH__FAILURES_MAX", 0), &dir.path().join("secret"));
    let rsa = Signer::rsa();
    fs::write(dir.path().join("keys"), key_set(&[rsa.jwk("r")])).expect("a file");
    let daemon = builder.set("AUTH__JWT__JWKS_FILE", dir.path().join("keys").display()).start().await;
    let secret = Signer::Secret(SECRET.to_vec());
    let good = claims("ann", "read");
    with(&daemon, &rsa.token(Some("r"), &good), "/functions").send().await.expect(200);
    with(&daemon, &secret.token(None, &good), "/functions").send().await.expect(200);
    let changed = |name: &str, value: Value| {
        let mut claims = good.clone();
        claims[name] = value;
        secret.token(None, &claims)
    };
    let tokens = [
        ("none", Signer::Nobody.token_under(&json!({ "alg": "none" }), &good)),
        ("confused", Signer::Secret(rsa.public_der()).token(Some("r"), &good)),
        ("a stranger's", Signer::rsa().token(Some("r"), &good)),
        ("another secret's", Signer::Secret(vec![7; 40]).token(None, &good)),
        ("expired", changed("exp", json!(now_s() - 3600))),
        ("endless", changed("exp", Value::Null)),
        ("of tomorrow", changed("nbf", json!(now_s() + 3600))),
        ("for another", changed("aud", json!("other"))),
        ("another's", changed("iss", json!("https://other"))),
        ("nobody's", changed("sub", json!(""))),
        ("too long", changed("padding", json!("x".repeat(9000)))),
    ];
    for (what, token) in &tokens {
        let answer = with(&daemon, token, "/functions").send().await;
        let (sentence, code) = answer.refused(401);
        assert_eq!(code, "Unauthorized", "{what}: {sentence}");
        assert!(!sentence.contains(token.as_str()), "{what}");
    }
    // As a key, a token is nothing.
    daemon.as_key(&secret.token(None, &good)).get("/functions").send().await.refused(401);
}

#[tokio::test]
async fn a_token_ends_at_its_time_though_it_is_remembered() {
    let dir = tempfile::tempdir().expect("a directory");
    let builder = accepting(Builder::default(), &dir.path().join("secret"));
    let daemon = builder.set("AUTH__JWT__CLOCK_SKEW_S", 0).start().await;
    let mut claims = claims("ann", "read");
    claims["exp"] = json!(now_s() + 3);
    let token = Signer::Secret(SECRET.to_vec()).token(None, &claims);
    with(&daemon, &token, "/functions").send().await.expect(200);
    while now_s() < claims["exp"].as_u64().expect("a number") {
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    let (sentence, _) = with(&daemon, &token, "/functions").send().await.refused(401);
    assert!(sentence.contains("expired"), "{sentence}");
}

/// A provider: its key set, and how often it was asked.
#[derive(Clone, Default)]
struct Provider {
    keys: Arc<Mutex<Vec<Value>>>,
    asked: Arc<AtomicUsize>,
}

impl Provider {
    /// Answers at this address from now on.
    async fn serve(&self) -> String {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let address = listener.local_addr().expect("an address");
        let provider = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                provider.answer(stream).await;
            }
        });
        format!("http://{address}/keys")
    }

    /// The same with TLS, by the certificate and key in `dir`.
    async fn serve_tls(&self, dir: &Path) -> String {
        let certificate = CertificateDer::from_pem_file(dir.join("cert.pem")).expect("a certificate");
        let key = PrivateKeyDer::from_pem_file(dir.join("key.pem")).expect("its key");
        let crypto = Arc::new(tokio_rustls::rustls::crypto::aws_lc_rs::default_provider());
        let config = ServerConfig::builder_with_provider(crypto).with_safe_default_protocol_versions().expect("TLS");
        let config = config.with_no_client_auth().with_single_cert(vec![certificate], key).expect("a pair");
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let port = listener.local_addr().expect("an address").port();
        let provider = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                if let Ok(stream) = acceptor.accept(stream).await {
                    provider.answer(stream).await;
                }
            }
        });
        format!("https://localhost:{port}/keys")
    }

    async fn answer(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let mut head = vec![0; 4096];
        let read = stream.read(&mut head).await.unwrap_or_default();
        assert!(head[..read].starts_with(b"GET /keys HTTP/1.1\r\n"), "{}", String::from_utf8_lossy(&head));
        let body = key_set(&self.keys.lock().expect("no holder panics"));
        let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len());
        let _ = stream.write_all(answer.as_bytes()).await;
        let _ = stream.shutdown().await;
    }
}

/// A certificate for `localhost` that signs itself, and its key.
fn certificate(dir: &Path) {
    let made = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2"])
        .args(["-subj", "/CN=faasd test provider", "-addext", "subjectAltName=DNS:localhost"])
        // Who is trusted as an authority may not stand for itself.
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .arg(dir.join("key.pem"))
        .arg("-out")
        .arg(dir.join("cert.pem"))
        .output()
        .expect("openssl runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn a_key_set_s_server_must_have_a_certificate_that_is_trusted() {
    let dir = tempfile::tempdir().expect("a directory");
    certificate(dir.path());
    let (provider, rsa) = (Provider::default(), Signer::rsa());
    *provider.keys.lock().expect("no holder panics") = vec![rsa.jwk("r")];
    let url = provider.serve_tls(dir.path()).await;
    let token = rsa.token(Some("r"), &claims("ann", "read"));

    let stranger = with_keys_from(&url).start().await;
    with(&stranger, &token, "/functions").send().await.refused(401);
    assert_eq!(provider.asked.load(Ordering::Relaxed), 0, "nothing is asked of a server that may be anybody");
    assert!(stranger.log().contains("invalid peer certificate"), "and the log says why");

    let known = with_keys_from(&url).set("AUTH__JWT__JWKS_CA_FILE", dir.path().join("cert.pem").display());
    let known = known.start().await;
    with(&known, &token, "/functions").send().await.expect(200);
}

fn with_keys_from(url: &str) -> Builder {
    Daemon::with("AUTH__JWT__ENABLED", true)
        .set("AUTH__JWT__JWKS_URL", url)
        .set("AUTH__JWT__ISSUER", "https://issuer")
        .set("AUTH__JWT__AUDIENCE", "faasd")
        .set("AUTH__FAILURES_MAX", 0)
}

#[tokio::test]
async fn keys_come_from_a_url_which_is_not_asked_for_every_token() {
    let provider = Provider::default();
    let (rsa, curve) = (Signer::rsa(), Signer::curve());
    *provider.keys.lock().expect("no holder panics") = vec![rsa.jwk("r"), curve.jwk("c")];
    let daemon = with_keys_from(&provider.serve().await).start().await;
    assert_eq!(provider.asked.load(Ordering::Relaxed), 1, "asked ahead of the first token");
    for n in 0..20 {
        let claims = claims(&format!("user-{n}"), "read");
        with(&daemon, &rsa.token(Some("r"), &claims), "/functions").send().await.expect(200);
        with(&daemon, &curve.token(Some("c"), &claims), "/functions").send().await.expect(200);
        with(&daemon, &rsa.token(Some(&format!("unknown-{n}")), &claims), "/functions").send().await.refused(401);
    }
    let asked = provider.asked.load(Ordering::Relaxed);
    assert!(asked <= 2, "asked {asked} times within a minute");
}

#[tokio::test]
async fn a_provider_that_is_down_at_the_start_is_asked_again_when_a_token_comes() {
    let provider = Provider::default();
    let rsa = Signer::rsa();
    let url = provider.serve().await;
    // An empty set is none.
    let daemon = with_keys_from(&url).start().await;
    with(&daemon, daemon.key(), "/functions").send().await.expect(200);
    *provider.keys.lock().expect("no holder panics") = vec![rsa.jwk("r")];
    let token = rsa.token(Some("r"), &claims("ann", "read"));
    let since = std::time::Instant::now();
    while with(&daemon, &token, "/functions").send().await.status != 200 {
        assert!(since.elapsed().as_secs() < 30, "the keys are not asked for again");
        tokio::time::sleep(std::time::Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn without_being_switched_on_no_token_is_believed() {
    let daemon = Daemon::start().await;
    let token = Signer::Secret(SECRET.to_vec()).token(None, &claims("ann", "read"));
    with(&daemon, &token, "/functions").send().await.refused(401);
}
