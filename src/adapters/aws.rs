//! The fleet's store on AWS: DynamoDB for functions, records and keys, SQS for jobs, S3 for artifacts.

pub mod client;
pub mod cloudwatch;
pub mod instance;
pub mod logs;
mod query;
pub mod s3;
pub mod sqs;
