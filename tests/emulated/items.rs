//! One item put, got, updated, deleted: conditions, what comes back, and limits.

use aws_sdk_dynamodb::primitives::Blob;
use aws_sdk_dynamodb::types::{AttributeValue, ReturnValue, ReturnValuesOnConditionCheckFailure};

use super::place::{Place, tables};
use super::values::{id, item, n, row, s, with};

emulated! {
    both: [
        every_type_comes_back,
        a_put_replaces,
        a_condition_decides,
        a_failed_condition_shows_the_item,
        a_deleted_item_is_gone,
        updates_change_what_they_name,
        a_counter_counts_each_caller_once,
        a_part_can_be_read,
        keys_are_checked,
    ],
    // What the functional emulator does otherwise is said beside each.
    ours: [
        // It leaves new attributes out of UPDATED_NEW.
        an_update_says_what_was_and_is,
        // It counts an item larger than it is.
        limits_are_kept,
    ]
}

async fn every_type_comes_back(place: &impl Place) {
    let client = tables(place).await;
    let list = vec![n(1), s("two"), AttributeValue::M(item([("deep", AttributeValue::Bool(true))]))];
    let whole = item([
        ("id", s("every")),
        ("text", s("é\u{1F600}\n\"")),
        ("empty", s("")),
        ("number", n("-12345678901234567890.5")),
        ("bytes", AttributeValue::B(Blob::new([0, 1, 255]))),
        ("texts", AttributeValue::Ss(vec!["a".into(), "b".into()])),
        ("numbers", AttributeValue::Ns(vec!["1".into(), "2.5".into()])),
        ("blobs", AttributeValue::Bs(vec![Blob::new([1]), Blob::new([2])])),
        ("list", AttributeValue::L(list)),
        ("flag", AttributeValue::Bool(false)),
        ("nothing", AttributeValue::Null(true)),
    ]);
    client.put_item().table_name("plain").set_item(Some(whole.clone())).send().await.unwrap();
    let found =
        client.get_item().table_name("plain").set_key(Some(id("every"))).consistent_read(true).send().await.unwrap();
    assert_eq!(found.item.unwrap(), whole);
    let none = client.get_item().table_name("plain").set_key(Some(id("none"))).send().await.unwrap();
    assert_eq!(none.item, None);
}

async fn a_put_replaces(place: &impl Place) {
    let client = tables(place).await;
    let put =
        |item| client.put_item().table_name("plain").set_item(Some(item)).return_values(ReturnValue::AllOld).send();
    let first = with(id("a"), [("x", n(1)), ("y", n(2))]);
    assert_eq!(put(first.clone()).await.unwrap().attributes, None);
    assert_eq!(put(with(id("a"), [("x", n(3))])).await.unwrap().attributes, Some(first));
    let found = client.get_item().table_name("plain").set_key(Some(id("a"))).send().await.unwrap().item.unwrap();
    assert_eq!(found, with(id("a"), [("x", n(3))]));
}

async fn a_condition_decides(place: &impl Place) {
    let client = tables(place).await;
    let create = |item| {
        let put = client.put_item().table_name("plain").set_item(Some(item));
        put.condition_expression("attribute_not_exists(#id)").expression_attribute_names("#id", "id").send()
    };
    create(with(id("a"), [("attempt", n(1))])).await.unwrap();
    let refused = create(with(id("a"), [("attempt", n(2))])).await.unwrap_err().into_service_error();
    assert!(refused.is_conditional_check_failed_exception(), "{refused:?}");
    let update = |attempt: i32| {
        let update = client.update_item().table_name("plain").set_key(Some(id("a")));
        let update = update.update_expression("SET attempt = :new").condition_expression("attempt < :new");
        update.expression_attribute_values(":new", n(attempt)).send()
    };
    update(10).await.unwrap();
    // By value, not as text.
    assert!(update(9).await.unwrap_err().into_service_error().is_conditional_check_failed_exception());
    let delete = |attempt: i32| {
        let delete = client.delete_item().table_name("plain").set_key(Some(id("a")));
        delete.condition_expression("attempt = :attempt").expression_attribute_values(":attempt", n(attempt)).send()
    };
    assert!(delete(9).await.unwrap_err().into_service_error().is_conditional_check_failed_exception());
    delete(10).await.unwrap();
    assert!(update(11).await.unwrap_err().into_service_error().is_conditional_check_failed_exception());
}

async fn a_failed_condition_shows_the_item(place: &impl Place) {
    let client = tables(place).await;
    let present = with(id("a"), [("owner", s("ann"))]);
    client.put_item().table_name("plain").set_item(Some(present.clone())).send().await.unwrap();
    let wanted = ReturnValuesOnConditionCheckFailure::AllOld;
    let create = client.put_item().table_name("plain").set_item(Some(id("a")));
    let create =
        create.condition_expression("attribute_not_exists(id)").return_values_on_condition_check_failure(wanted);
    let refused = create.send().await.unwrap_err().into_service_error();
    let aws_sdk_dynamodb::operation::put_item::PutItemError::ConditionalCheckFailedException(refused) = refused else {
        panic!("{refused:?}")
    };
    assert_eq!(refused.item, Some(present));
}

async fn a_deleted_item_is_gone(place: &impl Place) {
    let client = tables(place).await;
    let delete =
        || client.delete_item().table_name("rows").set_key(Some(row("a", 1))).return_values(ReturnValue::AllOld).send();
    let item = with(row("a", 1), [("x", n(1))]);
    client.put_item().table_name("rows").set_item(Some(item.clone())).send().await.unwrap();
    assert_eq!(delete().await.unwrap().attributes, Some(item));
    assert_eq!(delete().await.unwrap().attributes, None);
    let found = client.get_item().table_name("rows").set_key(Some(row("a", 1))).send().await.unwrap();
    assert_eq!(found.item, None);
}

async fn updates_change_what_they_name(place: &impl Place) {
    let client = tables(place).await;
    let update = client.update_item().table_name("plain").set_key(Some(id("fresh")));
    update.update_expression("SET a = :one ADD b :one").expression_attribute_values(":one", n(1)).send().await.unwrap();
    let update = client
        .update_item()
        .table_name("plain")
        .set_key(Some(id("fresh")))
        .update_expression(
            "SET #l = list_append(if_not_exists(#l, :none), :more), a = a - :one, doc = :doc REMOVE b ADD tags :tags",
        )
        .expression_attribute_names("#l", "list")
        .expression_attribute_values(":none", AttributeValue::L(vec![]))
        .expression_attribute_values(":more", AttributeValue::L(vec![s("x"), s("y")]))
        .expression_attribute_values(":one", n(1))
        .expression_attribute_values(":doc", AttributeValue::M(item([("x", n(1)), ("y", n(2))])))
        .expression_attribute_values(":tags", AttributeValue::Ss(vec!["p".into(), "q".into()]));
    update.send().await.unwrap();
    let update = client
        .update_item()
        .table_name("plain")
        .set_key(Some(id("fresh")))
        .update_expression("SET doc.x = doc.y + :one REMOVE doc.y, #l[0] DELETE tags :tags")
        .expression_attribute_names("#l", "list")
        .expression_attribute_values(":one", n(1))
        .expression_attribute_values(":tags", AttributeValue::Ss(vec!["p".into(), "z".into()]))
        .return_values(ReturnValue::AllNew);
    let after = update.send().await.unwrap().attributes.unwrap();
    let expected = with(
        id("fresh"),
        [
            ("a", n(0)),
            ("list", AttributeValue::L(vec![s("y")])),
            ("doc", AttributeValue::M(item([("x", n(3))]))),
            ("tags", AttributeValue::Ss(vec!["q".into()])),
        ],
    );
    assert_eq!(after, expected);
}

async fn an_update_says_what_was_and_is(place: &impl Place) {
    let client = tables(place).await;
    client
        .put_item()
        .table_name("plain")
        .set_item(Some(with(id("a"), [("x", n(1)), ("y", n(5))])))
        .send()
        .await
        .unwrap();
    let update = async |wanted: ReturnValue| {
        let update = client
            .update_item()
            .table_name("plain")
            .set_key(Some(id("a")))
            .update_expression("SET x = x + :one, z = :one");
        let update = update.expression_attribute_values(":one", n(1)).return_values(wanted);
        update.send().await.unwrap().attributes
    };
    assert_eq!(update(ReturnValue::UpdatedOld).await, Some(item([("x", n(1))])));
    assert_eq!(update(ReturnValue::UpdatedNew).await, Some(item([("x", n(3)), ("z", n(1))])));
    assert_eq!(update(ReturnValue::AllOld).await, Some(with(id("a"), [("x", n(3)), ("y", n(5)), ("z", n(1))])));
    assert_eq!(update(ReturnValue::None).await, None);
    assert_eq!(update(ReturnValue::AllNew).await, Some(with(id("a"), [("x", n(6)), ("y", n(5)), ("z", n(1))])));
}

async fn a_counter_counts_each_caller_once(place: &impl Place) {
    let client = tables(place).await;
    let mut callers = tokio::task::JoinSet::new();
    for _ in 0..20 {
        let update =
            client.update_item().table_name("plain").set_key(Some(id("count"))).update_expression("ADD #n :one");
        let update = update.expression_attribute_names("#n", "n").expression_attribute_values(":one", n(1));
        callers.spawn(update.return_values(ReturnValue::UpdatedNew).send());
    }
    let told =
        callers.join_all().await.into_iter().map(|told| told.unwrap().attributes.unwrap()["n"].as_n().unwrap().clone());
    let mut told: Vec<u32> = told.map(|text| text.parse().unwrap()).collect();
    told.sort_unstable();
    assert_eq!(told, (1..=20).collect::<Vec<_>>());
}

async fn a_part_can_be_read(place: &impl Place) {
    let client = tables(place).await;
    let doc = AttributeValue::M(item([("x", n(1)), ("y", n(2))]));
    client
        .put_item()
        .table_name("plain")
        .set_item(Some(with(id("a"), [("doc", doc), ("other", n(3))])))
        .send()
        .await
        .unwrap();
    let get = client.get_item().table_name("plain").set_key(Some(id("a"))).projection_expression("doc.#x, missing_one");
    let found = get.expression_attribute_names("#x", "x").send().await.unwrap().item.unwrap();
    assert_eq!(found, item([("doc", AttributeValue::M(item([("x", n(1))])))]));
}

async fn limits_are_kept(place: &impl Place) {
    let client = tables(place).await;
    let put = |bytes: usize| {
        let item = with(id("big"), [("d", s(&"x".repeat(bytes)))]);
        client.put_item().table_name("plain").set_item(Some(item)).send()
    };
    // With "id", "big" and "d" exactly as large as can be.
    put((400 << 10) - 6).await.unwrap();
    let refused = put((400 << 10) - 5).await.unwrap_err().into_service_error();
    assert_eq!(refused.meta().code(), Some("ValidationException"));
    assert!(refused.meta().message().unwrap().contains("Item size has exceeded"), "{refused:?}");
}

async fn keys_are_checked(place: &impl Place) {
    let client = tables(place).await;
    for (what, item) in [
        ("missing", item([("x", n(1))])),
        ("type", item([("id", n(1))])),
        ("empty", id("")),
        ("long", id(&"k".repeat(2049))),
    ] {
        let refused =
            client.put_item().table_name("plain").set_item(Some(item)).send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{what}");
    }
    client.put_item().table_name("plain").set_item(Some(id(&"k".repeat(2048)))).send().await.unwrap();
    for (what, key) in [("none", item([])), ("other", item([("x", s("a"))])), ("more", row("a", 1)), ("empty", id(""))]
    {
        let refused =
            client.get_item().table_name("plain").set_key(Some(key)).send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{what}");
    }
}
