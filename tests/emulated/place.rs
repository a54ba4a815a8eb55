//! Where a suite runs: what answers as AWS, and clients of it.

use aws_credential_types::Credentials;
use aws_sdk_dynamodb::config::{BehaviorVersion, Region};
use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, GlobalSecondaryIndex, KeySchemaElement, KeyType, LocalSecondaryIndex, Projection,
    ProjectionType, ScalarAttributeType,
};
use aws_smithy_http_client::Builder;
use aws_smithy_types::retry::RetryConfig;

use crate::support::dynamodb::FastDynamo;
use crate::support::s3::FastS3;

/// Ours in memory, or the functional emulator.
pub trait Place: Sync + Sized {
    async fn start() -> Self;
    fn dynamodb_endpoint(&self) -> String;
    fn s3_endpoint(&self) -> String;

    /// A client that tries once: a suite wants to see each answer.
    fn dynamodb(&self) -> aws_sdk_dynamodb::Client {
        aws_sdk_dynamodb::Client::from_conf(
            aws_sdk_dynamodb::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .endpoint_url(self.dynamodb_endpoint())
                .region(Region::new("us-east-1"))
                .credentials_provider(credentials())
                .http_client(Builder::new().build_http())
                .retry_config(RetryConfig::disabled())
                .build(),
        )
    }

    fn s3(&self) -> aws_sdk_s3::Client {
        aws_sdk_s3::Client::from_conf(
            aws_sdk_s3::Config::builder()
                .behavior_version(BehaviorVersion::latest())
                .endpoint_url(self.s3_endpoint())
                .force_path_style(true)
                .region(Region::new("us-east-1"))
                .credentials_provider(credentials())
                .http_client(Builder::new().build_http())
                .retry_config(RetryConfig::disabled())
                .build(),
        )
    }
}

fn credentials() -> Credentials {
    Credentials::new("test", "test", None, None, "test")
}

pub struct Fast {
    pub dynamodb: FastDynamo,
    pub s3: FastS3,
}

impl Place for Fast {
    async fn start() -> Self {
        Self { dynamodb: FastDynamo::start(), s3: FastS3::start() }
    }

    fn dynamodb_endpoint(&self) -> String {
        self.dynamodb.endpoint()
    }

    fn s3_endpoint(&self) -> String {
        self.s3.endpoint()
    }
}

pub fn hash(name: &str) -> KeySchemaElement {
    KeySchemaElement::builder().attribute_name(name).key_type(KeyType::Hash).build().unwrap()
}

pub fn range(name: &str) -> KeySchemaElement {
    KeySchemaElement::builder().attribute_name(name).key_type(KeyType::Range).build().unwrap()
}

fn attribute(name: &str, kind: ScalarAttributeType) -> AttributeDefinition {
    AttributeDefinition::builder().attribute_name(name).attribute_type(kind).build().unwrap()
}

pub fn projection(kind: ProjectionType, others: &[&str]) -> Projection {
    let others = (!others.is_empty()).then(|| others.iter().map(ToString::to_string).collect());
    Projection::builder().projection_type(kind).set_non_key_attributes(others).build()
}

pub fn index(name: &str, partition: &str, sort: &str, projection: Projection) -> GlobalSecondaryIndex {
    let index = GlobalSecondaryIndex::builder().index_name(name).key_schema(hash(partition)).key_schema(range(sort));
    index.projection(projection).build().unwrap()
}

/// `plain` has a partition key `id`; `rows` a sort key `at` as well, a number, global indexes of each projection by `owner` and
/// `name`, and a local one by `name`.
pub async fn tables(place: &impl Place) -> aws_sdk_dynamodb::Client {
    let client = place.dynamodb();
    let plain = client.create_table().table_name("plain").billing_mode(BillingMode::PayPerRequest);
    plain.attribute_definitions(attribute("id", ScalarAttributeType::S)).key_schema(hash("id")).send().await.unwrap();
    let local = LocalSecondaryIndex::builder().index_name("by_name").key_schema(hash("id")).key_schema(range("name"));
    let rows = client.create_table().table_name("rows").billing_mode(BillingMode::PayPerRequest);
    rows.attribute_definitions(attribute("id", ScalarAttributeType::S))
        .attribute_definitions(attribute("at", ScalarAttributeType::N))
        .attribute_definitions(attribute("owner", ScalarAttributeType::S))
        .attribute_definitions(attribute("name", ScalarAttributeType::S))
        .key_schema(hash("id"))
        .key_schema(range("at"))
        .global_secondary_indexes(index("whole", "owner", "name", projection(ProjectionType::All, &[])))
        .global_secondary_indexes(index("keys", "owner", "name", projection(ProjectionType::KeysOnly, &[])))
        .global_secondary_indexes(index("part", "owner", "at", projection(ProjectionType::Include, &["size_b"])))
        .local_secondary_indexes(local.projection(projection(ProjectionType::All, &[])).build().unwrap())
        .send()
        .await
        .unwrap();
    client
}
