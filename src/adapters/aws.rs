//! The fleet's store on AWS: DynamoDB for functions, records and keys, SQS for jobs, S3 for artifacts; CloudWatch for what others are
//! told, the instance's metadata for what a node is told, and an Elastic IP as the fleet's address.

pub mod address;
pub mod client;
pub mod cloudwatch;
pub mod dynamodb;
pub mod instance;
pub mod logs;
mod query;
pub mod s3;
pub mod sqs;
