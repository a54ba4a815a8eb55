//! SQS's errors in the port's words: the lease is lost, or the queue can't be had now.

use aws_sdk_sqs::error::{BuildError, DisplayErrorContext, ProvideErrorMetadata, SdkError};

use crate::ports::StoreError;
use crate::ports::queue::QueueError;

/// Why a request, or an entry of one, was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// The receipt is not, or no longer, that of a message in flight.
    Stale,
    Unavailable(String),
    /// The same again would be refused again.
    Wrong(String),
}

/// What SQS calls a receipt that is over, in the model's words and in the older protocol's.
const STALE: [&str; 4] = [
    "ReceiptHandleIsInvalid",
    "MessageNotInflight",
    "AWS.SimpleQueueService.MessageNotInflight",
    "AWS.SimpleQueueService.ReceiptHandleIsInvalid",
];

/// An entry of a batch.
pub(super) fn refused(code: &str, is_senders_fault: bool, message: &str) -> Refused {
    if STALE.contains(&code) || (code == "InvalidParameterValue" && message.contains("receipt handle")) {
        Refused::Stale
    } else if is_senders_fault && !code.contains("Throttl") {
        Refused::Wrong(format!("{code}: {message}"))
    } else {
        Refused::Unavailable(format!("{code}: {message}"))
    }
}

impl Refused {
    pub fn wrong(error: BuildError) -> Self {
        Refused::Wrong(error.to_string())
    }

    pub fn from_sdk<E, R>(error: SdkError<E, R>) -> Self
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
        R: std::fmt::Debug + 'static,
    {
        let code = error.code().unwrap_or_default();
        if STALE.contains(&code) {
            return Refused::Stale;
        }
        Refused::Unavailable(DisplayErrorContext(&error).to_string())
    }
}

impl From<Refused> for StoreError {
    fn from(refused: Refused) -> Self {
        match refused {
            // Without a receipt there is none that could be stale.
            Refused::Stale => StoreError::Unavailable("SQS: a receipt is stale".to_owned()),
            Refused::Unavailable(why) | Refused::Wrong(why) => StoreError::Unavailable(format!("SQS: {why}")),
        }
    }
}

impl From<Refused> for QueueError {
    fn from(refused: Refused) -> Self {
        match refused {
            Refused::Stale => QueueError::LeaseLost,
            other => QueueError::Store(other.into()),
        }
    }
}
