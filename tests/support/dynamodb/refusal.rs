//! Why a request is refused, as the service says it: a type that clients decode, a status, a sentence, and what goes with it.

use serde_json::{Value as Json, json};

#[derive(Clone, Debug, PartialEq)]
pub struct Refusal {
    pub status: u16,
    pub kind: &'static str,
    pub message: String,
    /// Members of the body beside type and message.
    pub with: Option<(&'static str, Json)>,
}

pub type Answer<T> = Result<T, Refusal>;

impl Refusal {
    pub fn new(kind: &'static str, message: impl Into<String>) -> Self {
        Self { status: 400, kind, message: message.into(), with: None }
    }

    pub fn validation(message: impl Into<String>) -> Self {
        Self::new("ValidationException", message)
    }

    /// What most validation failures of values begin with.
    pub fn invalid_value(message: impl std::fmt::Display) -> Self {
        Self::validation(format!("One or more parameter values were invalid: {message}"))
    }

    pub fn no_table() -> Self {
        Self::new("ResourceNotFoundException", "Requested resource not found")
    }

    pub fn internal() -> Self {
        Self { status: 500, ..Self::new("InternalServerError", "Internal server error") }
    }

    pub fn throttled() -> Self {
        let message = "The level of configured provisioned throughput for the table was exceeded. Consider increasing your \
                       provisioning level with the UpdateTable API.";
        Self::new("ProvisionedThroughputExceededException", message)
    }

    pub fn body(&self) -> Json {
        let namespace = match self.kind {
            "ValidationException" | "SerializationException" | "UnknownOperationException" => {
                "com.amazon.coral.validate"
            }
            _ => "com.amazonaws.dynamodb.v20120810",
        };
        let mut body = json!({ "__type": format!("{namespace}#{}", self.kind), "message": self.message });
        if let Some((name, value)) = &self.with {
            body[*name] = value.clone();
        }
        body
    }
}
