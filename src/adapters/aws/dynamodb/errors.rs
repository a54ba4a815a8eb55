//! From what DynamoDB and the way to it say to what a caller can do about it.

use aws_sdk_dynamodb::error::{ProvideErrorMetadata, SdkError};

use crate::ports::StoreError;

/// `step` is a verb phrase. What a condition refused is no error and was told apart before.
pub(super) fn failed<E, R>(step: &str, error: &SdkError<E, R>) -> StoreError
where
    E: ProvideErrorMetadata,
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
        SdkError::DispatchFailure(failure) => match failure.as_connector_error() {
            Some(error) => format!("the request could not be sent: {error}"),
            None => "the request could not be sent".to_owned(),
        },
        SdkError::ConstructionFailure(_) => {
            "the request could not be made: region or credentials are missing".to_owned()
        }
        _ => "the answer could not be read".to_owned(),
    };
    StoreError::Unavailable(format!("{step}: {said}"))
}

/// Whoever was to answer is gone.
pub(super) fn stopped() -> StoreError {
    StoreError::Unavailable("the store is closed".to_owned())
}
