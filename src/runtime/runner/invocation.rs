//! What passes between an invocation and a client of the Runtime API, in its words.

use super::http;
use super::service::Running;
use crate::runtime::wire::{RuntimeError, Specialise};

/// The answer to `next`.
pub(super) fn invocation_response(specialise: &Specialise, call: &Running, payload: &[u8]) -> Vec<u8> {
    let region = specialise.env.get("AWS_REGION").map_or("us-east-1", String::as_str);
    let mut head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nLambda-Runtime-Aws-Request-Id: {id}\r\n\
         Lambda-Runtime-Deadline-Ms: {deadline}\r\nLambda-Runtime-Trace-Id: {trace}\r\n\
         Lambda-Runtime-Invoked-Function-Arn: arn:aws:lambda:{region}:000000000000:function:{name}\r\n",
        id = call.id,
        deadline = call.deadline_ms,
        trace = trace_id(&call.id),
        name = specialise.function_name,
    );
    if let Some(model_id) = call.model_id.as_deref().filter(|text| text.bytes().all(|b| b.is_ascii_graphic())) {
        head.push_str(&format!("Faasd-Model-Id: {model_id}\r\n"));
    }
    head.push_str(&format!("Content-Length: {}\r\n\r\n", payload.len()));
    [head.as_bytes(), payload].concat()
}

/// An X-Ray trace id of the usual form, not sampled, made of the invocation's own id.
fn trace_id(id: &str) -> String {
    let digits: String = id.chars().filter(char::is_ascii_hexdigit).chain(std::iter::repeat('0')).take(32).collect();
    format!("Root=1-{}-{};Parent={};Sampled=0", &digits[..8], &digits[8..], &digits[16..])
}

/// The answer to whoever names an invocation that isn't running.
pub(super) fn wrong_id() -> Vec<u8> {
    http::error_response("400 Bad Request", "InvalidRequestID", "no invocation of this id is running here")
}

/// What a client of the Runtime API says of an error: `{errorType, errorMessage, stackTrace | trace}`, all optional.
pub(super) fn reported(header: Option<String>, body: &[u8]) -> RuntimeError {
    let parsed: serde_json::Value = serde_json::from_slice(body).unwrap_or_default();
    let text = |name: &str| parsed[name].as_str().map(str::to_owned);
    let lines = [&parsed["stackTrace"], &parsed["trace"]].into_iter().find_map(serde_json::Value::as_array);
    let line = |value: &serde_json::Value| value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    RuntimeError {
        error_type: text("errorType").or(header).unwrap_or_else(|| "Error".to_owned()),
        error_message: text("errorMessage").unwrap_or_else(|| String::from_utf8_lossy(body).into_owned()),
        stack_trace: lines.map(|lines| lines.iter().map(line).collect()).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_understood_whoever_reports_it() {
        let python = reported(None, br#"{"errorType":"E","errorMessage":"m","stackTrace":["a"]}"#);
        assert_eq!((python.error_type.as_str(), python.error_message.as_str()), ("E", "m"));
        assert_eq!(python.stack_trace, ["a"]);
        assert_eq!(reported(None, br#"{"trace":["b", 1]}"#).stack_trace, ["b", "1"]);
        let bare = reported(Some("H".to_owned()), b"words");
        assert_eq!((bare.error_type.as_str(), bare.error_message.as_str()), ("H", "words"));
    }

    #[test]
    fn a_trace_id_has_the_usual_form() {
        assert_eq!(
            trace_id("01234567-89ab-cdef-0123-456789abcdef"),
            "Root=1-01234567-89abcdef0123456789abcdef;Parent=0123456789abcdef;Sampled=0"
        );
    }
}
