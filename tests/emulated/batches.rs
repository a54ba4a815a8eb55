//! Batches: up to 25 writes, up to 100 reads, over several tables.

use aws_sdk_dynamodb::types::{DeleteRequest, KeysAndAttributes, PutRequest, WriteRequest};

use super::place::{Place, tables};
use super::values::{Item, id, ids, n, row, s, with};

emulated! {
    both: [
        a_batch_writes_and_reads,
    ],
    // What the functional emulator does otherwise is said beside each.
    ours: [
        // It reads more than 100.
        a_batch_has_its_limits,
        // It writes one item twice.
        wrong_batches_are_refused,
    ]
}

pub fn put(item: Item) -> WriteRequest {
    WriteRequest::builder().put_request(PutRequest::builder().set_item(Some(item)).build().unwrap()).build()
}

fn delete(key: Item) -> WriteRequest {
    WriteRequest::builder().delete_request(DeleteRequest::builder().set_key(Some(key)).build().unwrap()).build()
}

pub fn keys(keys: impl IntoIterator<Item = Item>) -> KeysAndAttributes {
    KeysAndAttributes::builder().set_keys(Some(keys.into_iter().collect())).build().unwrap()
}

async fn a_batch_writes_and_reads(place: &impl Place) {
    let client = tables(place).await;
    client.put_item().table_name("plain").set_item(Some(id("old"))).send().await.unwrap();
    let plain: Vec<_> =
        (0..20).map(|i| put(with(id(&format!("i{i}")), [("x", n(i))]))).chain([delete(id("old"))]).collect();
    let rows: Vec<_> = (0..4).map(|at| put(row("a", at))).collect();
    let done =
        client.batch_write_item().request_items("plain", plain).request_items("rows", rows).send().await.unwrap();
    assert!(done.unprocessed_items().unwrap().is_empty());

    let wanted = (0..30).map(|i| id(&format!("i{i}"))).chain([id("old")]);
    let read = client
        .batch_get_item()
        .request_items("plain", keys(wanted))
        .request_items("rows", keys([row("a", 3), row("a", 4)]));
    let read = read.send().await.unwrap();
    assert!(read.unprocessed_keys().unwrap().is_empty());
    let responses = read.responses.unwrap();
    let mut found = ids(&responses["plain"]);
    found.sort_unstable();
    let mut expected: Vec<String> = (0..20).map(|i| format!("i{i}")).collect();
    expected.sort_unstable();
    assert_eq!(found, expected);
    assert_eq!(responses["rows"], [row("a", 3)]);

    let part = keys([id("i3")]).clone();
    let part = KeysAndAttributes::builder().set_keys(Some(part.keys)).projection_expression("x").build().unwrap();
    let read = client.batch_get_item().request_items("plain", part).send().await.unwrap();
    assert_eq!(read.responses.unwrap()["plain"][0].get("x"), Some(&n(3)));
}

async fn a_batch_has_its_limits(place: &impl Place) {
    let client = tables(place).await;
    let write = |count: usize| {
        let puts = (0..count).map(|i| put(id(&format!("i{i}")))).collect();
        client.batch_write_item().request_items("plain", puts).send()
    };
    write(25).await.unwrap();
    assert_eq!(write(26).await.unwrap_err().into_service_error().meta().code(), Some("ValidationException"));
    let read = |count: usize| {
        client.batch_get_item().request_items("plain", keys((0..count).map(|i| id(&format!("i{i}"))))).send()
    };
    read(100).await.unwrap();
    assert_eq!(read(101).await.unwrap_err().into_service_error().meta().code(), Some("ValidationException"));
}

async fn wrong_batches_are_refused(place: &impl Place) {
    let client = tables(place).await;
    let write = |table: &str, writes: Vec<WriteRequest>| client.batch_write_item().request_items(table, writes).send();
    for (what, writes) in [
        ("twice", vec![put(id("a")), put(id("a"))]),
        ("put and deleted", vec![put(id("a")), delete(id("a"))]),
        ("no key", vec![put(id("b")), put(with(Item::new(), [("x", s("a"))]))]),
        ("empty key", vec![put(id("b")), put(id(""))]),
    ] {
        let refused = write("plain", writes).await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{what}: {refused:?}");
    }
    // Nothing of a refused batch is written.
    assert_eq!(client.scan().table_name("plain").send().await.unwrap().count(), 0);
    assert!(
        write("none", vec![put(id("a"))]).await.unwrap_err().into_service_error().is_resource_not_found_exception()
    );
    let twice = client.batch_get_item().request_items("plain", keys([id("a"), id("a")])).send().await;
    assert_eq!(twice.unwrap_err().into_service_error().meta().code(), Some("ValidationException"));
}
