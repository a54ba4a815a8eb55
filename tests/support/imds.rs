//! What an instance is told of itself (IMDSv2, with its token), and the group that it belongs to, in one small server. A test says
//! what is announced, and asks what the group was told.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::service::service_fn;
use hyper::{Method, Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

const TOKEN: &str = "a-token-of-the-test";
pub const INSTANCE: &str = "i-0123456789abcdef0";

#[derive(Default)]
struct State {
    /// Below `/latest/meta-data/`.
    told: BTreeMap<String, String>,
    /// Bodies of requests to the group's service that were signed.
    requests: Vec<String>,
    is_in_group: bool,
}

/// Ended when dropped.
pub struct Imds {
    endpoint: String,
    state: Arc<Mutex<State>>,
    accepting: JoinHandle<()>,
}

impl Imds {
    /// An instance of the group `workers`, whose hook at an instance's end is `drain`.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let told = BTreeMap::from([("instance-id".to_owned(), INSTANCE.to_owned())]);
        let state = Arc::new(Mutex::new(State { told, requests: Vec::new(), is_in_group: true }));
        let accepting = tokio::spawn({
            let state = state.clone();
            async move {
                let mut connections = tokio::task::JoinSet::new();
                while let Ok((stream, _)) = listener.accept().await {
                    let state = state.clone();
                    let service = service_fn(move |request| {
                        let state = state.clone();
                        async move { Ok::<_, Infallible>(answer(&state, request).await) }
                    });
                    connections.spawn(async move {
                        let _ = hyper::server::conn::http1::Builder::new()
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            }
        });
        Self { endpoint, state, accepting }
    }

    pub fn endpoint(&self) -> &str {
        &self.endpoint
    }

    pub fn tell(&self, path: &str, text: &str) {
        self.state.lock().unwrap().told.insert(path.to_owned(), text.to_owned());
    }

    pub fn take_back(&self, path: &str) {
        self.state.lock().unwrap().told.remove(path);
    }

    pub fn leave_group(&self) {
        self.state.lock().unwrap().is_in_group = false;
    }

    /// What the group's service was asked for, oldest first.
    pub fn requests(&self) -> Vec<String> {
        self.state.lock().unwrap().requests.clone()
    }
}

impl Drop for Imds {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

fn respond(code: u16, text: impl Into<String>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(code)
        .header("x-aws-ec2-metadata-token-ttl-seconds", "21600")
        .body(Full::new(Bytes::from(text.into())))
        .unwrap()
}

async fn answer(state: &Mutex<State>, request: Request<hyper::body::Incoming>) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    let body =
        body.collect().await.map(|body| String::from_utf8_lossy(&body.to_bytes()).into_owned()).unwrap_or_default();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let path = head.uri.path();
    if head.method == Method::PUT && path == "/latest/api/token" {
        return respond(200, TOKEN);
    }
    if let Some(path) = path.strip_prefix("/latest/meta-data/") {
        if header("x-aws-ec2-metadata-token") != TOKEN {
            return respond(401, "");
        }
        return state
            .lock()
            .unwrap()
            .told
            .get(path)
            .map_or_else(|| respond(404, ""), |text| respond(200, text.clone()));
    }
    let signed = header("authorization");
    if !(signed.starts_with("AWS4-HMAC-SHA256 Credential=") && signed.contains("/autoscaling/aws4_request")) {
        return respond(
            403,
            "<ErrorResponse><Error><Code>MissingAuthenticationToken</Code><Message>no</Message></Error></ErrorResponse>",
        );
    }
    let mut state = state.lock().unwrap();
    state.requests.push(body.clone());
    let members = if body.starts_with("Action=DescribeAutoScalingInstances") && state.is_in_group {
        "<member><AutoScalingGroupName>workers</AutoScalingGroupName></member>"
    } else if body.starts_with("Action=DescribeLifecycleHooks") {
        "<member><LifecycleHookName>warm</LifecycleHookName><LifecycleTransition>autoscaling:EC2_INSTANCE_LAUNCHING</LifecycleTransition></member>\
         <member><LifecycleTransition>autoscaling:EC2_INSTANCE_TERMINATING</LifecycleTransition><LifecycleHookName>drain</LifecycleHookName></member>"
    } else {
        ""
    };
    respond(200, format!("<Response><Result>{members}</Result></Response>"))
}
