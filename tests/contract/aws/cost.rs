//! Requests and write units of what a call, a page and a deployment do: docs/aws.md tells them.

use super::*;

/// An item's size as DynamoDB counts it.
fn bytes_of(item: &std::collections::HashMap<String, aws_sdk_dynamodb::types::AttributeValue>) -> usize {
    use aws_sdk_dynamodb::types::AttributeValue as Value;
    let value = |value: &Value| match value {
        Value::S(text) => text.len(),
        Value::B(bytes) => bytes.as_ref().len(),
        Value::N(digits) => digits.len().div_ceil(2) + 1,
        other => panic!("{other:?}"),
    };
    item.iter().map(|(name, one)| name.len() + value(one)).sum()
}

/// docs/aws.md says what a call costs: that many requests, and items of one write unit.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_call_costs_the_requests_that_are_documented() {
    let world = world().await;
    let (invocations, record) = (world.invocations(), queued("ann"));
    let id = record.record.request_id;
    let client = aws_sdk_dynamodb::Client::new(&world.sdk);
    let table = tables::INVOCATIONS.full_name(&world.config.aws.table_prefix);
    let is_one_unit = async || {
        let id = aws_sdk_dynamodb::types::AttributeValue::S(id.to_string());
        let item = client.get_item().table_name(&table).key("id", id).send().await.unwrap().item.unwrap();
        let bytes = bytes_of(&item);
        println!("an item of {bytes} bytes");
        assert!((512..=1024).contains(&bytes), "{bytes}: {item:?}");
    };
    invocations.create(record.clone(), None).await.unwrap();
    is_one_unit().await;
    invocations.start(id, 1, worker_id(), world.now()).await.unwrap();
    is_one_unit().await;
    let mut end = Arc::unwrap_or_clone(ended(&record, 1, Status::Success, world.now()));
    // What a run leaves in it.
    let result = serde_json::value::RawValue::from_string("{\"temperature\":21.5,\"city\":\"Bern\"}".to_owned());
    end.record = faasd::domain::invocation::Record {
        worker_id: Some(worker_id()),
        started_at: Some(world.now()),
        start_type: Some(faasd::domain::outcome::StartType::Warm),
        exit_code: Some(0),
        duration_ms: Some(12.345),
        handler_duration_ms: Some(11.234),
        peak_memory_bytes: Some(12_345_678),
        cpu_us: Some(10_234),
        throttled_us: Some(0),
        disk_read: Some(0),
        disk_write: Some(0),
        network_rx: Some(0),
        network_tx: Some(0),
        result: Some(result.unwrap().into()),
        ..end.record
    };
    invocations.finish(Arc::new(end)).await.unwrap();
    is_one_unit().await;
    let sent = |operation: &str, count| (operation.to_owned(), count);
    assert_eq!(world.requests(), [sent("PutItem", 2), sent("UpdateItem", 1)]);
    invocations.get(id).await.unwrap();
    assert_eq!(world.requests(), [sent("GetItem", 1), sent("PutItem", 2), sent("UpdateItem", 1)]);
    invocations.finish_behind(finished("ann", Status::Success)).unwrap();
    world.store.close().await;
    assert_eq!(world.requests(), [sent("GetItem", 1), sent("PutItem", 3), sent("UpdateItem", 1)]);
}

/// What a page and what a deployment cost.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_and_a_deployment_cost_the_requests_that_are_documented() {
    let world = world().await;
    for _ in 0..20 {
        world.invocations().finish(finished("ann", Status::Success)).await.unwrap();
    }
    let sent = |operation: &str, count| (operation.to_owned(), count);
    let world = world.killed().await;
    let query = RecordQuery { limit: 10, owner: Some(Owner::new("ann")), ..Default::default() };
    assert_eq!(world.invocations().list(&query).await.unwrap().items.len(), 10);
    assert_eq!(world.requests(), [sent("BatchGetItem", 1), sent("Query", 4)]);
    let world = world.killed().await;
    assert_eq!(world.invocations().list(&RecordQuery { owner: None, ..query }).await.unwrap().items.len(), 10);
    assert_eq!(world.requests(), [sent("BatchGetItem", 1), sent("Query", 16)]);
    let world = world.killed().await;
    let (function, version) = function("ann", "hello");
    world.registry().create(&function, &version).await.unwrap();
    assert_eq!(world.requests(), [sent("TransactWriteItems", 1)]);
    world.registry().publish(&samples::version(&function, 2)).await.unwrap();
    assert_eq!(world.requests(), [sent("GetItem", 1), sent("TransactWriteItems", 2)]);
}
