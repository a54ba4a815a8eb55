//! Query and Scan of a table: conditions on the sort key, order, pages, filters.

use std::collections::BTreeSet;

use aws_sdk_dynamodb::types::Select;

use super::place::{Fast, Place, tables};
use super::values::{Item, ats, id, ids, n, row, s, with};

emulated! {
    both: [
        sort_keys_are_compared_by_value,
        both_directions_and_pages,
        a_filter_drops_after_the_limit,
        counts_and_parts,
        a_page_has_its_bytes,
        a_scan_finds_each_once,
    ],
    // What the functional emulator does otherwise is said beside each.
    ours: [
        // It answers a page of HTML to OR.
        wrong_key_conditions_are_refused,
    ]
}

/// Rows 1 to 12 of `a`, and some of others.
async fn rows(place: &impl Place) -> aws_sdk_dynamodb::Client {
    let client = tables(place).await;
    for (id, at) in (1..=12).map(|at| ("a", at)).chain([("b", 5), ("c", 5)]) {
        let item = with(row(id, at), [("even", n(u8::from(at % 2 == 0))), ("text", s("x"))]);
        client.put_item().table_name("rows").set_item(Some(item)).send().await.unwrap();
    }
    client
}

async fn sort_keys_are_compared_by_value(place: &impl Place) {
    let client = rows(place).await;
    for (condition, expected) in [
        ("at = :v", vec![9]),
        ("at < :v", (1..=8).collect()),
        ("at <= :v", (1..=9).collect()),
        ("at > :v", (10..=12).collect()),
        ("at >= :v", (9..=12).collect()),
        ("at BETWEEN :v AND :w", (9..=11).collect()),
    ] {
        let query = client
            .query()
            .table_name("rows")
            .key_condition_expression(format!("id = :id AND {}", condition.replace("at", "#at")));
        let query = query.expression_attribute_names("#at", "at");
        let query = query.expression_attribute_values(":id", s("a")).expression_attribute_values(":v", n(9));
        let query = if condition.contains(":w") { query.expression_attribute_values(":w", n(11)) } else { query };
        assert_eq!(ats(query.send().await.unwrap().items()), expected, "{condition}");
    }
    let none = client
        .query()
        .table_name("rows")
        .key_condition_expression("id = :id")
        .expression_attribute_values(":id", s("none"));
    assert_eq!(none.send().await.unwrap().count(), 0);
}

async fn both_directions_and_pages(place: &impl Place) {
    let client = rows(place).await;
    for forward in [true, false] {
        let mut found = Vec::new();
        let mut start: Option<Item> = None;
        let mut pages = 0;
        loop {
            let query = client
                .query()
                .table_name("rows")
                .key_condition_expression("id = :id")
                .expression_attribute_values(":id", s("a"));
            let page = query.limit(5).scan_index_forward(forward).set_exclusive_start_key(start).send().await.unwrap();
            found.extend(ats(page.items()));
            pages += 1;
            start = page.last_evaluated_key;
            match &start {
                Some(key) => assert_eq!(key, &row("a", *found.last().unwrap())),
                None => break,
            }
        }
        let expected: Vec<i64> = if forward { (1..=12).collect() } else { (1..=12).rev().collect() };
        assert_eq!((found, pages), (expected, 3));
    }
}

async fn a_filter_drops_after_the_limit(place: &impl Place) {
    let client = rows(place).await;
    let query = client
        .query()
        .table_name("rows")
        .key_condition_expression("id = :id")
        .filter_expression("even = :even")
        .expression_attribute_values(":id", s("a"))
        .expression_attribute_values(":even", n(1))
        .limit(5);
    let page = query.send().await.unwrap();
    assert_eq!((ats(page.items()), page.count(), page.scanned_count()), (vec![2, 4], 2, 5));
    assert_eq!(page.last_evaluated_key, Some(row("a", 5)));
}

async fn counts_and_parts(place: &impl Place) {
    let client = rows(place).await;
    let query = || {
        client
            .query()
            .table_name("rows")
            .key_condition_expression("id = :id")
            .expression_attribute_values(":id", s("a"))
    };
    let counted = query().select(Select::Count).send().await.unwrap();
    assert_eq!((counted.count(), counted.items().len()), (12, 0));
    let part = query().projection_expression("even, id").limit(1).send().await.unwrap();
    assert_eq!(part.items(), [with(id("a"), [("even", n(0))])]);
}

async fn wrong_key_conditions_are_refused(place: &impl Place) {
    let client = rows(place).await;
    for text in [
        "#at = :v",
        "id = :v AND text = :v",
        "id < :v",
        "id = :v OR #at = :n",
        "id = :v AND #at = :n AND #at = :n",
        "id = :v AND #at <> :n",
    ] {
        let query = client.query().table_name("rows").key_condition_expression(text);
        let query = if text.contains(":v") { query.expression_attribute_values(":v", s("a")) } else { query };
        let query = if text.contains(":n") { query.expression_attribute_values(":n", n(1)) } else { query };
        let query = if text.contains("#at") { query.expression_attribute_names("#at", "at") } else { query };
        let query = if text == "#at = :v" { query.expression_attribute_values(":v", n(1)) } else { query };
        let refused = query.send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{text}: {refused:?}");
    }
}

async fn a_page_has_its_bytes(place: &impl Place) {
    let client = tables(place).await;
    for at in 0..4 {
        let item = with(row("big", at), [("d", s(&"x".repeat(390 << 10)))]);
        client.put_item().table_name("rows").set_item(Some(item)).send().await.unwrap();
    }
    let query = client
        .query()
        .table_name("rows")
        .key_condition_expression("id = :id")
        .expression_attribute_values(":id", s("big"));
    let page = query.clone().send().await.unwrap();
    assert!((1..=3).contains(&page.count()) && page.last_evaluated_key.is_some(), "{}", page.count());
    let rest = query.set_exclusive_start_key(page.last_evaluated_key).send().await.unwrap();
    assert_eq!(page.items.unwrap().len() + rest.items.unwrap().len(), 4);
}

async fn a_scan_finds_each_once(place: &impl Place) {
    let client = rows(place).await;
    let mut found = Vec::new();
    let mut start = None;
    loop {
        let page = client.scan().table_name("rows").limit(4).set_exclusive_start_key(start).send().await.unwrap();
        found.extend(ids(page.items()).into_iter().zip(ats(page.items())));
        start = page.last_evaluated_key;
        if start.is_none() {
            break;
        }
    }
    assert_eq!(found.len(), 14);
    assert_eq!(found.iter().collect::<BTreeSet<_>>().len(), 14);
    let some = client.scan().table_name("rows").filter_expression("id = :id AND even = :even");
    let some = some.expression_attribute_values(":id", s("a")).expression_attribute_values(":even", n(1));
    let some = some.send().await.unwrap();
    assert_eq!((some.count(), some.scanned_count()), (6, 14));
}

#[tokio::test]
async fn segments_of_a_scan_share_the_table() {
    let place = Fast::start().await;
    let client = rows(&place).await;
    let mut found = Vec::new();
    for segment in 0..3 {
        let page = client.scan().table_name("rows").segment(segment).total_segments(3).send().await;
        found.extend(ids(page.unwrap().items()));
    }
    found.sort_unstable();
    assert_eq!(found.len(), 14);
    assert_eq!(found[12..], ["b", "c"]);
}

/// As the service does, and the functional emulator does not.
#[tokio::test]
async fn what_only_the_service_refuses() {
    let place = Fast::start().await;
    let client = rows(&place).await;
    let query = client
        .query()
        .table_name("rows")
        .key_condition_expression("id = :id")
        .expression_attribute_values(":id", s("a"));
    let on_key = query
        .clone()
        .filter_expression("#at = :v")
        .expression_attribute_names("#at", "at")
        .expression_attribute_values(":v", n(1));
    let elsewhere = query.clone().set_exclusive_start_key(Some(row("b", 5)));
    let not_a_key = query.set_exclusive_start_key(Some(id("a")));
    for query in [on_key, elsewhere, not_a_key] {
        let refused = query.send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{refused:?}");
    }
}
