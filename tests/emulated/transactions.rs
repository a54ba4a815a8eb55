//! Transactions: all is done or nothing, each item's reason in its place, and a token that does it once.

use aws_sdk_dynamodb::operation::transact_write_items::TransactWriteItemsError;
use aws_sdk_dynamodb::types::{
    CancellationReason, ConditionCheck, Delete, Get, Put, ReturnValuesOnConditionCheckFailure, TransactGetItem,
    TransactWriteItem, Update,
};

use super::place::{Fast, Place, tables};
use super::values::{Item, id, n, row, s, with};
use crate::support::faults::Faults;

emulated! {
    both: [
        all_is_done_or_nothing,
        each_reason_stands_in_its_place,
        wrong_transactions_are_refused,
    ],
    // What the functional emulator does otherwise is said beside each.
    ours: [
        // It knows no tokens.
        a_token_does_it_once,
        // It reads whole items.
        several_are_read_at_once,
    ]
}

fn create(item: Item) -> TransactWriteItem {
    let put = Put::builder().table_name("plain").set_item(Some(item)).condition_expression("attribute_not_exists(id)");
    let put = put.return_values_on_condition_check_failure(ReturnValuesOnConditionCheckFailure::AllOld);
    TransactWriteItem::builder().put(put.build().unwrap()).build()
}

fn add(id_: &str, by: i32) -> TransactWriteItem {
    let update = Update::builder().table_name("plain").set_key(Some(id(id_))).update_expression("ADD x :by");
    TransactWriteItem::builder().update(update.expression_attribute_values(":by", n(by)).build().unwrap()).build()
}

fn check(id_: &str) -> TransactWriteItem {
    let check = ConditionCheck::builder()
        .table_name("plain")
        .set_key(Some(id(id_)))
        .condition_expression("attribute_exists(id)");
    TransactWriteItem::builder().condition_check(check.build().unwrap()).build()
}

fn delete(id_: &str) -> TransactWriteItem {
    let delete = Delete::builder().table_name("plain").set_key(Some(id(id_)));
    TransactWriteItem::builder().delete(delete.build().unwrap()).build()
}

async fn found(client: &aws_sdk_dynamodb::Client, key: &str) -> Option<Item> {
    client.get_item().table_name("plain").set_key(Some(id(key))).consistent_read(true).send().await.unwrap().item
}

fn reasons(refused: TransactWriteItemsError) -> Vec<CancellationReason> {
    let TransactWriteItemsError::TransactionCanceledException(refused) = refused else { panic!("{refused:?}") };
    refused.cancellation_reasons.unwrap()
}

fn codes(reasons: &[CancellationReason]) -> Vec<&str> {
    reasons.iter().map(|reason| reason.code().unwrap()).collect()
}

async fn all_is_done_or_nothing(place: &impl Place) {
    let client = tables(place).await;
    for key in ["count", "old", "there"] {
        client.put_item().table_name("plain").set_item(Some(id(key))).send().await.unwrap();
    }
    let transaction = |first| {
        let items = vec![first, add("count", 1), delete("old"), check("there")];
        client.transact_write_items().set_transact_items(Some(items)).send()
    };
    let refused = transaction(create(id("there2"))).await;
    refused.unwrap();
    assert_eq!(found(&client, "count").await, Some(with(id("count"), [("x", n(1))])));
    assert_eq!(found(&client, "old").await, None);
    let refused = transaction(create(id("there2"))).await.unwrap_err().into_service_error();
    assert_eq!(codes(&reasons(refused)), ["ConditionalCheckFailed", "None", "None", "None"]);
    assert_eq!(found(&client, "count").await, Some(with(id("count"), [("x", n(1))])));
}

async fn each_reason_stands_in_its_place(place: &impl Place) {
    let client = tables(place).await;
    let present = with(id("a"), [("owner", s("ann"))]);
    client.put_item().table_name("plain").set_item(Some(present.clone())).send().await.unwrap();
    let items = vec![create(id("b")), create(id("a")), add("c", 1), check("d")];
    let refused = client.transact_write_items().set_transact_items(Some(items)).send().await.unwrap_err();
    let reasons = reasons(refused.into_service_error());
    assert_eq!(codes(&reasons), ["None", "ConditionalCheckFailed", "None", "ConditionalCheckFailed"]);
    assert_eq!(reasons[1].item, Some(present));
    assert_eq!(reasons[1].message(), Some("The conditional request failed"));
    assert_eq!(reasons[3].item.clone().unwrap_or_default(), Item::new());
    assert_eq!((found(&client, "b").await, found(&client, "c").await), (None, None));
}

async fn a_token_does_it_once(place: &impl Place) {
    let client = tables(place).await;
    let transaction = |token: &str, by| {
        client.transact_write_items().transact_items(add("count", by)).client_request_token(token).send()
    };
    transaction("one", 1).await.unwrap();
    transaction("one", 1).await.unwrap();
    assert_eq!(found(&client, "count").await.unwrap()["x"], n(1));
    let refused = transaction("one", 2).await.unwrap_err().into_service_error();
    assert!(refused.is_idempotent_parameter_mismatch_exception(), "{refused:?}");
    transaction("two", 1).await.unwrap();
    assert_eq!(found(&client, "count").await.unwrap()["x"], n(2));
}

async fn several_are_read_at_once(place: &impl Place) {
    let client = tables(place).await;
    client
        .put_item()
        .table_name("plain")
        .set_item(Some(with(id("a"), [("x", n(1)), ("y", n(2))])))
        .send()
        .await
        .unwrap();
    client.put_item().table_name("rows").set_item(Some(row("a", 1))).send().await.unwrap();
    let get = |table: &str, key: Item| Get::builder().table_name(table).set_key(Some(key));
    let wanted = [get("plain", id("a")).projection_expression("x"), get("plain", id("none")), get("rows", row("a", 1))];
    let wanted = wanted.map(|get| TransactGetItem::builder().get(get.build().unwrap()).build()).to_vec();
    let read = client.transact_get_items().set_transact_items(Some(wanted)).send().await.unwrap();
    let items: Vec<Option<Item>> =
        read.responses.unwrap().into_iter().map(|response| response.item.filter(|i| !i.is_empty())).collect();
    assert_eq!(items, [Some(with(Item::new(), [("x", n(1))])), None, Some(row("a", 1))]);
}

async fn wrong_transactions_are_refused(place: &impl Place) {
    let client = tables(place).await;
    let send = |items: Vec<TransactWriteItem>| client.transact_write_items().set_transact_items(Some(items)).send();
    for (what, items) in [
        ("one item twice", vec![add("a", 1), check("a")]),
        ("too many", (0..101).map(|i| add(&format!("i{i}"), 1)).collect()),
    ] {
        let refused = send(items).await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{what}: {refused:?}");
    }
    send((0..100).map(|i| add(&format!("i{i}"), 1)).collect()).await.unwrap();
}

#[tokio::test]
async fn a_conflict_cancels() {
    let place = Fast::start().await;
    let client = tables(&place).await;
    place.dynamodb.faults(Faults { conflicting: 1.0, ..Faults::default() });
    let refused =
        client.transact_write_items().transact_items(add("a", 1)).transact_items(add("b", 1)).send().await.unwrap_err();
    assert_eq!(codes(&reasons(refused.into_service_error())), ["TransactionConflict", "None"]);
    assert_eq!(found(&client, "a").await, None);
}
