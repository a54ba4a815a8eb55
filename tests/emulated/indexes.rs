//! Secondary indexes: who is in them, in what order, with what, and how they follow their table.

use aws_sdk_dynamodb::types::Select;

use super::place::{Fast, Place, tables};
use super::values::{Item, ats, item, n, row, s, with};
use crate::support::faults::Faults;

emulated! {
    both: [
        only_whoever_has_the_key_is_in_it,
        an_index_follows_its_table,
        each_holds_what_it_projects,
        rows_of_one_key_come_in_pages,
        a_local_index_sorts_otherwise,
    ],
    // What the functional emulator does otherwise is said beside each.
    ours: [
        // It knows another error for a missing index.
        wrong_uses_are_refused,
    ]
}

async fn put(client: &aws_sdk_dynamodb::Client, item: Item) {
    client.put_item().table_name("rows").set_item(Some(item)).send().await.unwrap();
}

async fn of(client: &aws_sdk_dynamodb::Client, index: &str, owner: &str) -> Vec<Item> {
    let query = client.query().table_name("rows").index_name(index).key_condition_expression("#o = :o");
    let query = query.expression_attribute_names("#o", "owner").expression_attribute_values(":o", s(owner));
    query.send().await.unwrap().items.unwrap()
}

async fn only_whoever_has_the_key_is_in_it(place: &impl Place) {
    let client = tables(place).await;
    put(&client, with(row("a", 1), [("owner", s("ann")), ("name", s("z"))])).await;
    put(&client, with(row("a", 2), [("owner", s("ann")), ("name", s("b"))])).await;
    put(&client, with(row("a", 3), [("owner", s("ann"))])).await;
    put(&client, with(row("a", 4), [("name", s("c"))])).await;
    put(&client, with(row("a", 5), [("owner", s("bob")), ("name", s("c"))])).await;
    assert_eq!(ats(&of(&client, "whole", "ann").await), [2, 1]);
    assert_eq!(ats(&of(&client, "part", "ann").await), [1, 2, 3]);
    assert_eq!(ats(&of(&client, "whole", "bob").await), [5]);
    let scanned = client.scan().table_name("rows").index_name("whole").send().await.unwrap();
    assert_eq!(scanned.count(), 3);
}

async fn an_index_follows_its_table(place: &impl Place) {
    let client = tables(place).await;
    let update = async |text: &str, owner: Option<&str>| {
        let update = client.update_item().table_name("rows").set_key(Some(row("a", 1))).update_expression(text);
        let update = update.expression_attribute_names("#o", "owner");
        let update = if let Some(owner) = owner { update.expression_attribute_values(":o", s(owner)) } else { update };
        update.send().await.unwrap();
    };
    put(&client, with(row("a", 1), [("owner", s("ann")), ("name", s("x"))])).await;
    update("SET #o = :o", Some("bob")).await;
    assert_eq!((of(&client, "whole", "ann").await.len(), of(&client, "whole", "bob").await.len()), (0, 1));
    update("REMOVE #o", None).await;
    assert_eq!(of(&client, "whole", "bob").await.len(), 0);
    update("SET #o = :o", Some("ann")).await;
    assert_eq!(of(&client, "whole", "ann").await.len(), 1);
    client.delete_item().table_name("rows").set_key(Some(row("a", 1))).send().await.unwrap();
    assert_eq!(of(&client, "whole", "ann").await.len(), 0);
}

async fn each_holds_what_it_projects(place: &impl Place) {
    let client = tables(place).await;
    let whole = with(row("a", 1), [("owner", s("ann")), ("name", s("x")), ("size_b", n(7)), ("text", s("long"))]);
    put(&client, whole.clone()).await;
    let of_keys = with(row("a", 1), [("owner", s("ann")), ("name", s("x"))]);
    let of_part = with(row("a", 1), [("owner", s("ann")), ("size_b", n(7))]);
    assert_eq!(of(&client, "whole", "ann").await, [whole]);
    assert_eq!(of(&client, "keys", "ann").await, [of_keys]);
    assert_eq!(of(&client, "part", "ann").await, [of_part]);
}

async fn rows_of_one_key_come_in_pages(place: &impl Place) {
    let client = tables(place).await;
    for at in 1..=7 {
        put(&client, with(row("a", at), [("owner", s("ann")), ("name", s("same"))])).await;
    }
    let mut found = Vec::new();
    let mut start: Option<Item> = None;
    loop {
        let query =
            client.query().table_name("rows").index_name("whole").key_condition_expression("#o = :o AND #n = :n");
        let query = query.expression_attribute_names("#o", "owner").expression_attribute_values(":o", s("ann"));
        let query = query.expression_attribute_names("#n", "name").expression_attribute_values(":n", s("same"));
        let page = query.limit(3).scan_index_forward(false).set_exclusive_start_key(start).send().await.unwrap();
        found.extend(ats(page.items()));
        start = page.last_evaluated_key;
        let Some(key) = &start else { break };
        let expected = with(row("a", *found.last().unwrap()), [("owner", s("ann")), ("name", s("same"))]);
        assert_eq!(key, &expected);
    }
    found.sort_unstable();
    assert_eq!(found, (1..=7).collect::<Vec<_>>());
}

async fn a_local_index_sorts_otherwise(place: &impl Place) {
    let client = tables(place).await;
    for (at, name) in [(1, "app-z"), (2, "app-b"), (3, "other")] {
        put(&client, with(row("a", at), [("name", s(name))])).await;
    }
    let query = client.query().table_name("rows").index_name("by_name").consistent_read(true);
    let query =
        query.key_condition_expression("id = :id AND begins_with(#n, :start)").expression_attribute_names("#n", "name");
    let query = query.expression_attribute_values(":id", s("a")).expression_attribute_values(":start", s("app-"));
    assert_eq!(ats(query.clone().send().await.unwrap().items()), [2, 1]);
    assert_eq!(ats(query.scan_index_forward(false).send().await.unwrap().items()), [1, 2]);
}

async fn wrong_uses_are_refused(place: &impl Place) {
    let client = tables(place).await;
    let query = || {
        let query = client.query().table_name("rows").key_condition_expression("#o = :o");
        query.expression_attribute_names("#o", "owner").expression_attribute_values(":o", s("ann"))
    };
    for (what, query) in [
        ("no such index", query().index_name("none")),
        ("consistent", query().index_name("whole").consistent_read(true)),
        ("no key of the table", query()),
    ] {
        let refused = query.send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{what}: {refused:?}");
    }
    for (what, value) in [("type", n(1)), ("empty", s(""))] {
        let wrong = with(row("a", 1), [("owner", value), ("name", s("x"))]);
        let refused =
            client.put_item().table_name("rows").set_item(Some(wrong)).send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{what}: {refused:?}");
    }
}

/// As the service does, and the functional emulator does not.
#[tokio::test]
async fn what_an_index_does_not_hold_is_refused() {
    let place = Fast::start().await;
    let client = tables(&place).await;
    let query = client.query().table_name("rows").index_name("keys").key_condition_expression("#o = :o");
    let query = query.expression_attribute_names("#o", "owner").expression_attribute_values(":o", s("ann"));
    for query in [query.clone().projection_expression("size_b"), query.select(Select::AllAttributes)] {
        let refused = query.send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{refused:?}");
    }
}

#[tokio::test]
async fn a_global_index_can_be_behind() {
    let place = Fast::start().await;
    let client = tables(&place).await;
    place.dynamodb.faults(Faults { index_lag_ms: 200, ..Faults::default() });
    let began = std::time::Instant::now();
    put(&client, with(row("a", 1), [("owner", s("ann")), ("name", s("x"))])).await;
    let found = of(&client, "whole", "ann").await;
    assert!(found.is_empty() || began.elapsed().as_millis() >= 200);
    let table = client.get_item().table_name("rows").set_key(Some(row("a", 1))).send().await.unwrap();
    assert!(table.item.is_some());
    while of(&client, "whole", "ann").await.is_empty() {
        assert!(began.elapsed().as_secs() < 10, "the index never follows");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    assert_eq!(of(&client, "whole", "ann").await[0]["at"], item([("at", n(1))])["at"]);
}
