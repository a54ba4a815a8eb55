//! Why the fast SQS refuses a request, or one entry of a batch, in the words of both protocols.

use serde_json::json;

use super::queue::Stale;

pub type Answer = Result<Vec<u8>, Error>;

/// Why a request, or one entry of a batch, was refused.
#[derive(Debug)]
pub struct Error {
    pub status: u16,
    /// In the model; in the older protocol, which clients know too.
    code: &'static str,
    pub query_code: &'static str,
    pub message: String,
}

impl Error {
    pub fn sender(code: &'static str, query_code: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, code, query_code, message: message.into() }
    }

    pub fn invalid(message: impl Into<String>) -> Self {
        Self::sender("InvalidParameterValue", "InvalidParameterValue", message)
    }

    pub fn no_queue() -> Self {
        let query_code = "AWS.SimpleQueueService.NonExistentQueue";
        Self::sender("QueueDoesNotExist", query_code, "The specified queue does not exist.")
    }

    pub fn internal() -> Self {
        Self { status: 500, code: "InternalError", query_code: "InternalError", message: "on purpose".to_owned() }
    }

    pub fn throttled() -> Self {
        Self::sender("RequestThrottled", "RequestThrottled", "The request was denied due to request throttling.")
    }

    pub fn query_error(&self) -> String {
        let fault = if self.status < 500 { "Sender" } else { "Receiver" };
        format!("{};{fault}", self.query_code)
    }

    pub fn json(&self) -> Vec<u8> {
        json!({ "__type": format!("com.amazonaws.sqs#{}", self.code), "message": self.message })
            .to_string()
            .into_bytes()
    }
}

impl From<serde_json::Error> for Error {
    fn from(error: serde_json::Error) -> Self {
        Self::sender("InvalidParameterValue", "MalformedInput", error.to_string())
    }
}

impl From<Stale> for Error {
    fn from(stale: Stale) -> Self {
        match stale {
            Stale::Invalid => {
                let code = "ReceiptHandleIsInvalid";
                Self::sender(code, code, "The input receipt handle is invalid.")
            }
            Stale::NotInFlight => {
                let query_code = "AWS.SimpleQueueService.MessageNotInflight";
                Self::sender("MessageNotInflight", query_code, "The message referred to isn't in flight.")
            }
        }
    }
}
