//! Requests to an AWS service in the query protocol, signed by Signature Version 4: for services of which we need an action or two,
//! and whose clients take long to build.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use aws_config::SdkConfig;
use aws_credential_types::provider::{ProvideCredentials, SharedCredentialsProvider};
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use aws_types::service_config::ServiceConfigKey;
use bytes::Bytes;
use http::{Request, Uri};
use http_body_util::Full;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use crate::adapters::key_set_web::{connector, encrypted, exchange};
use crate::ports::clock::Clock;

/// From the look-up of the name to the last byte.
const WITHIN: Duration = Duration::from_secs(10);
/// An answer of the actions that are asked for has a few kilobytes.
const ANSWER_BYTES_MAX: usize = 256 << 10;
const FORM: &str = "application/x-www-form-urlencoded; charset=utf-8";

pub(super) struct Query {
    service: &'static str,
    region: String,
    endpoint: Uri,
    credentials: SharedCredentialsProvider,
    clock: Arc<dyn Clock>,
    /// `None`: plain HTTP, to an endpoint that was handed in.
    tls: Option<TlsConnector>,
}

impl Query {
    /// The endpoint is the one given, else the one that clients of this service were told, else the one that all were told, else the
    /// service's own.
    pub fn new(
        sdk: &SdkConfig,
        service: &'static str,
        endpoint: Option<&str>,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, String> {
        let region = sdk.region().ok_or("no AWS region is set: set AWS_REGION")?.to_string();
        let credentials = sdk.credentials_provider().ok_or("no AWS credentials are set up")?;
        let usual = format!("https://{service}.{region}.amazonaws.com/");
        let of_service = endpoint_of(sdk, service);
        let endpoint: Uri = endpoint
            .or(of_service.as_deref())
            .or(sdk.endpoint_url())
            .unwrap_or(&usual)
            .parse()
            .map_err(|error| format!("the endpoint: {error}"))?;
        let is_plain = endpoint.scheme_str() == Some("http");
        let tls = if is_plain { None } else { Some(connector(Path::new("")).map_err(|error| error.to_string())?) };
        Ok(Self { service, region, endpoint, credentials, clock, tls })
    }

    /// The answer's XML; the error is a sentence.
    pub async fn ask(&self, action: &str, version: &str, parameters: &[(&str, &str)]) -> Result<String, String> {
        let mut body = format!("Action={action}&Version={version}");
        for (name, value) in parameters {
            body.push_str(&format!("&{name}={}", percent_encoded(value)));
        }
        let answered = tokio::time::timeout(WITHIN, self.exchange(body)).await;
        let answered = answered.unwrap_or_else(|_| Err(format!("no answer within {} s", WITHIN.as_secs())));
        answered.map_err(|error| format!("{}: {action}: {error}", self.service))
    }

    async fn exchange(&self, body: String) -> Result<String, String> {
        let request = self.signed(body).await?;
        let host = self.endpoint.host().unwrap_or_default();
        let port = self.endpoint.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host, port)).await.map_err(|error| format!("connect to {host}: {error}"))?;
        let (status, answer) = match &self.tls {
            None => exchange(stream, request, ANSWER_BYTES_MAX).await?,
            Some(tls) => exchange(encrypted(tls, host, stream).await?, request, ANSWER_BYTES_MAX).await?,
        };
        let answer = String::from_utf8_lossy(&answer).into_owned();
        if status.is_success() {
            return Ok(answer);
        }
        let code = between(&answer, "Code").unwrap_or("no code");
        Err(format!("the answer is {status}, {code}: {}", between(&answer, "Message").unwrap_or_default()))
    }

    async fn signed(&self, body: String) -> Result<Request<Full<Bytes>>, String> {
        let credentials =
            self.credentials.provide_credentials().await.map_err(|error| format!("find credentials: {error}"))?;
        let identity = credentials.into();
        let parameters = v4::SigningParams::builder()
            .identity(&identity)
            .region(&self.region)
            .name(self.service)
            .time(SystemTime::UNIX_EPOCH + Duration::from_millis(self.clock.now().as_millis()))
            .settings(SigningSettings::default())
            .build()
            .map_err(|error| format!("sign: {error}"))?
            .into();
        let host = self.endpoint.authority().map_or("", |authority| authority.as_str());
        let headers = [("host", host), ("content-type", FORM)];
        let signable = SignableRequest::new(
            "POST",
            self.endpoint.to_string(),
            headers.into_iter(),
            SignableBody::Bytes(body.as_bytes()),
        );
        let signing =
            signable.and_then(|request| sign(request, &parameters)).map_err(|error| format!("sign: {error}"))?;
        let (signature, _) = signing.into_parts();
        let mut request =
            Request::post("/").header("host", host).header("content-type", FORM).header("connection", "close");
        for (name, value) in signature.headers() {
            request = request.header(name, value);
        }
        request.body(Full::new(Bytes::from(body))).map_err(|error| format!("make the request: {error}"))
    }
}

/// What `AWS_ENDPOINT_URL_<SERVICE>` and the profile say of this service.
fn endpoint_of(sdk: &SdkConfig, service: &str) -> Option<String> {
    // Its id, which is not always what requests are signed for.
    let id = match service {
        "autoscaling" => "Auto Scaling",
        "monitoring" => "CloudWatch",
        other => other,
    };
    let key = ServiceConfigKey::builder().service_id(id).env("AWS_ENDPOINT_URL").profile("endpoint_url").build();
    sdk.service_config()?.load_config(key.ok()?)
}

/// RFC 3986's unreserved characters stay.
fn percent_encoded(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// The text of the first element of that name, which has no attributes and nothing but text in it.
pub(super) fn between<'a>(xml: &'a str, name: &str) -> Option<&'a str> {
    let (_, rest) = xml.split_once(&format!("<{name}>"))?;
    rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_encoded_and_elements_found() {
        assert_eq!(percent_encoded("a b/ü~"), "a%20b%2F%C3%BC~");
        assert_eq!(between("<A><B> x </B><B>y</B></A>", "B"), Some("x"));
        assert_eq!(between("<A><B>", "B"), None);
    }
    /// As the environment of `AWS_ENDPOINT_URL_AUTO_SCALING`.
    #[derive(Debug)]
    struct Told;

    impl aws_types::service_config::LoadServiceConfig for Told {
        fn load_config(&self, key: ServiceConfigKey<'_>) -> Option<String> {
            let told = (key.service_id(), key.env(), key.profile());
            (told == ("Auto Scaling", "AWS_ENDPOINT_URL", "endpoint_url")).then(|| "http://127.0.0.1:1/".to_owned())
        }
    }

    #[test]
    fn a_service_may_have_an_endpoint_of_its_own() {
        let sdk = SdkConfig::builder().service_config(Told).build();
        assert_eq!(endpoint_of(&sdk, "autoscaling").as_deref(), Some("http://127.0.0.1:1/"));
        assert_eq!(endpoint_of(&sdk, "ec2"), None);
        assert_eq!(endpoint_of(&SdkConfig::builder().build(), "autoscaling"), None);
    }
}
