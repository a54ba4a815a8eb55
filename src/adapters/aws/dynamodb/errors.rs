//! From what DynamoDB and the way to it say to what a caller can do about it.

use std::error::Error;
use std::fmt::Debug;

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::ports::StoreError;

/// `step` is a verb phrase. What a condition refused is no error and was told apart before.
pub(super) fn failed<E, R>(step: &str, error: &SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata + Error + 'static,
    R: Debug + 'static,
{
    let said = match error {
        SdkError::ServiceError(service) => {
            let (code, message) = (service.err().code().unwrap_or("unknown"), service.err().message());
            if code == "ResourceNotFoundException" {
                return StoreError::Unavailable(format!(
                    "{step}: a table is not there: run `faasd admin create-tables`, and look at aws.table_prefix and the region"
                ));
            }
            // What can't fit will not fit the next time either.
            if code == "ValidationException" && message.is_some_and(|message| message.contains("size")) {
                return StoreError::Full(format!("{step}: {}", message.unwrap_or_default()));
            }
            format!("{code}: {}", message.unwrap_or("no message"))
        }
        SdkError::TimeoutError(_) => "no answer in time (aws.operation_timeout_ms)".to_owned(),
        SdkError::DispatchFailure(_) | SdkError::ConstructionFailure(_) => {
            format!("the request could not be sent: {}", innermost(error))
        }
        _ => "the answer could not be read".to_owned(),
    };
    StoreError::Unavailable(format!("{step}: {said}"))
}

/// What began it: `Connection refused`, or which credentials are missing.
fn innermost(error: &dyn Error) -> String {
    let mut innermost = error;
    while let Some(source) = innermost.source() {
        innermost = source;
    }
    innermost.to_string()
}

/// Whoever was to answer is gone.
pub(super) fn stopped() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}
