//! Failures on purpose, as the SDK's clients see them, and how another process switches them on.

use std::time::{Duration, Instant};

use aws_sdk_dynamodb::types::{BillingMode, TableStatus};
use http_body_util::{BodyExt, Full};

use super::batches::{keys, put};
use super::place::{Fast, Place, hash, tables};
use super::values::{id, n};
use crate::support::faults::Faults;

#[tokio::test]
async fn shares_of_the_requests_fail() {
    let place = Fast::start().await;
    let client = tables(&place).await;
    place.dynamodb.faults(Faults { seed: 3, failing: 0.2, throttled: 0.2, ..Faults::default() });
    let (mut failed, mut throttled, mut done) = (0, 0, 0);
    for _ in 0..300 {
        let update =
            client.update_item().table_name("plain").set_key(Some(id("count"))).update_expression("ADD x :one");
        match update.expression_attribute_values(":one", n(1)).send().await.map_err(|error| error.into_service_error())
        {
            Ok(_) => done += 1,
            Err(error) if error.is_internal_server_error() => failed += 1,
            Err(error) if error.is_provisioned_throughput_exceeded_exception() => throttled += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!((30..100).contains(&failed) && (30..100).contains(&throttled), "{failed} {throttled} {done}");
    place.dynamodb.faults(Faults::default());
    let counted = client.get_item().table_name("plain").set_key(Some(id("count"))).send().await.unwrap().item.unwrap();
    let counted: i32 = counted["x"].as_n().unwrap().parse().unwrap();
    // Of the failed some were done all the same: the client can't know which.
    assert!(counted > done && counted < done + failed, "{counted} {done} {failed}");
    assert_eq!(place.dynamodb.requests()["UpdateItem"], 300);
}

#[tokio::test]
async fn some_stall() {
    let place = Fast::start().await;
    let client = tables(&place).await;
    place.dynamodb.faults(Faults { stalled: 1.0, stall_ms: 120, ..Faults::default() });
    let began = Instant::now();
    client.put_item().table_name("plain").set_item(Some(id("a"))).send().await.unwrap();
    assert!(began.elapsed() >= Duration::from_millis(120));
}

#[tokio::test]
async fn batches_are_left_half_done() {
    let place = Fast::start().await;
    let client = tables(&place).await;
    place.dynamodb.faults(Faults { seed: 1, unprocessed: 0.5, ..Faults::default() });
    let mut left: Vec<_> = (0..25).map(|i| put(id(&format!("i{i}")))).collect();
    let mut rounds = 0;
    while !left.is_empty() {
        let done = client.batch_write_item().request_items("plain", left.clone()).send().await.unwrap();
        left = done.unprocessed_items.unwrap().remove("plain").unwrap_or_default();
        rounds += 1;
    }
    assert!((2..30).contains(&rounds), "{rounds}");
    let mut wanted = keys((0..25).map(|i| id(&format!("i{i}"))));
    let mut found = 0;
    loop {
        let read = client.batch_get_item().request_items("plain", wanted).send().await.unwrap();
        found += read.responses.unwrap()["plain"].len();
        match read.unprocessed_keys.unwrap().remove("plain") {
            Some(rest) => wanted = rest,
            None => break,
        }
    }
    assert_eq!(found, 25);
}

#[tokio::test]
async fn a_table_may_take_its_time() {
    let place = Fast::start().await;
    place.dynamodb.faults(Faults { creating_ms: 300, ..Faults::default() });
    let client = place.dynamodb();
    let declared =
        aws_sdk_dynamodb::types::AttributeDefinition::builder().attribute_name("id").attribute_type("S".into());
    let create =
        client.create_table().table_name("slow").billing_mode(BillingMode::PayPerRequest).key_schema(hash("id"));
    let created =
        create.attribute_definitions(declared.build().unwrap()).send().await.unwrap().table_description.unwrap();
    assert_eq!(created.table_status, Some(TableStatus::Creating));
    let early = client.put_item().table_name("slow").set_item(Some(id("a"))).send().await.unwrap_err();
    assert!(early.into_service_error().is_resource_not_found_exception());
    let status =
        async || client.describe_table().table_name("slow").send().await.unwrap().table.unwrap().table_status.unwrap();
    let began = Instant::now();
    while status().await != TableStatus::Active {
        assert!(began.elapsed().as_secs() < 10, "the table is never there");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    client.put_item().table_name("slow").set_item(Some(id("a"))).send().await.unwrap();
}

/// Status and body of a request to a control route.
async fn tell(method: &str, url: String, body: &'static str) -> (u16, String) {
    let executor = hyper_util::rt::TokioExecutor::new();
    let client = hyper_util::client::legacy::Client::builder(executor).build_http::<Full<bytes::Bytes>>();
    let request = http::Request::builder().method(method).uri(url).body(Full::from(body)).unwrap();
    let response = client.request(request).await.unwrap();
    let status = response.status().as_u16();
    (status, String::from_utf8(response.into_body().collect().await.unwrap().to_bytes().to_vec()).unwrap())
}

#[tokio::test]
async fn another_process_tells_by_http() {
    let place = Fast::start().await;
    let client = tables(&place).await;
    let (dynamodb, s3) = (place.dynamodb.endpoint(), place.s3.endpoint());
    let put = || client.put_item().table_name("plain").set_item(Some(id("a"))).send();
    put().await.unwrap();
    assert_eq!(tell("PUT", format!("{dynamodb}/faults"), r#"{"seed":1,"throttled":1}"#).await.0, 200);
    assert!(put().await.unwrap_err().into_service_error().is_provisioned_throughput_exceeded_exception());
    // A misspelt fault is no fault: who asks for it is told.
    assert_eq!(tell("PUT", format!("{dynamodb}/faults"), r#"{"throttling":1}"#).await.0, 400);
    assert_eq!(tell("PUT", format!("{dynamodb}/faults"), "{}").await.0, 200);
    put().await.unwrap();
    let (_, counts) = tell("GET", format!("{dynamodb}/requests"), "").await;
    assert_eq!(counts, r#"{"CreateTable":2,"PutItem":3}"#);
    assert_eq!(tell("PUT", format!("{dynamodb}/sweep"), "100").await, (200, "0".to_owned()));
    assert_eq!(tell("PUT", format!("{dynamodb}/reset"), "").await.0, 200);
    assert!(put().await.unwrap_err().into_service_error().is_resource_not_found_exception());

    place.s3.create("bucket");
    assert_eq!(tell("PUT", format!("{s3}/-/faults"), r#"{"failing":1}"#).await.0, 200);
    let refused = place.s3().head_bucket().bucket("bucket").send().await.unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 500);
}

#[tokio::test]
async fn objects_fail_too() {
    let place = Fast::start().await;
    place.s3.create("bucket");
    let put = || {
        let body = aws_sdk_s3::primitives::ByteStream::from_static(b"x");
        place.s3().put_object().bucket("bucket").key("k").body(body).send()
    };
    place.s3.faults(Faults { throttled: 1.0, ..Faults::default() });
    let refused = put().await.unwrap_err();
    assert_eq!(refused.raw_response().unwrap().status().as_u16(), 503);
    assert_eq!(refused.into_service_error().meta().code(), Some("SlowDown"));
    place.s3.faults(Faults::default());
    put().await.unwrap();
    assert_eq!(place.s3.requests()["PUT object"], 2);
}
