//! The fleet's store on AWS: DynamoDB for functions, records and keys, SQS for jobs, S3 for artifacts.

pub mod client;
pub mod dynamodb;
