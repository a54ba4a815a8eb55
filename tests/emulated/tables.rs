//! Tables: made, described, listed, given an expiry, dropped.

use aws_sdk_dynamodb::types::{
    AttributeDefinition, BillingMode, ProjectionType, ScalarAttributeType, TableStatus, TimeToLiveSpecification,
    TimeToLiveStatus,
};

use super::place::{Fast, Place, hash, index, projection, tables};
use super::values::{id, item, n, s};

emulated! {
    both: [
        a_table_is_what_it_was_made,
        a_table_is_made_once,
        tables_are_listed_in_pages,
        a_dropped_table_is_gone,
        what_is_wrong_makes_no_table,
    ],
    // What the functional emulator does otherwise is said beside each.
    ours: [
        // It switches it on twice.
        expiry_is_switched_on_once,
    ]
}

async fn a_table_is_what_it_was_made(place: &impl Place) {
    let client = tables(place).await;
    let table = client.describe_table().table_name("rows").send().await.unwrap().table.unwrap();
    assert_eq!(table.table_status(), Some(&TableStatus::Active));
    assert_eq!(table.billing_mode_summary().unwrap().billing_mode(), Some(&BillingMode::PayPerRequest));
    let keys: Vec<&str> = table.key_schema().iter().map(|key| key.attribute_name()).collect();
    assert_eq!(keys, ["id", "at"]);
    let mut declared: Vec<&str> = table.attribute_definitions().iter().map(|d| d.attribute_name()).collect();
    declared.sort_unstable();
    assert_eq!(declared, ["at", "id", "name", "owner"]);
    let part = table.global_secondary_indexes().iter().find(|index| index.index_name() == Some("part")).unwrap();
    assert_eq!(part.projection().unwrap().projection_type(), Some(&ProjectionType::Include));
    assert_eq!(part.projection().unwrap().non_key_attributes(), ["size_b"]);
    assert_eq!(table.global_secondary_indexes().len(), 3);
    assert_eq!(table.local_secondary_indexes()[0].index_name(), Some("by_name"));
    assert!(table.table_arn().unwrap().ends_with(":table/rows"));
}

async fn a_table_is_made_once(place: &impl Place) {
    let client = tables(place).await;
    let again =
        client.create_table().table_name("plain").billing_mode(BillingMode::PayPerRequest).key_schema(hash("id"));
    let declared = AttributeDefinition::builder().attribute_name("id").attribute_type(ScalarAttributeType::S);
    let refused = again.attribute_definitions(declared.build().unwrap()).send().await.unwrap_err();
    assert!(refused.into_service_error().is_resource_in_use_exception());
}

async fn tables_are_listed_in_pages(place: &impl Place) {
    let client = tables(place).await;
    let first = client.list_tables().limit(1).send().await.unwrap();
    assert_eq!(first.table_names(), ["plain"]);
    let rest =
        client.list_tables().exclusive_start_table_name(first.last_evaluated_table_name.unwrap()).send().await.unwrap();
    assert_eq!(rest.table_names(), ["rows"]);
    assert_eq!(rest.last_evaluated_table_name(), None);
}

async fn expiry_is_switched_on_once(place: &impl Place) {
    let client = tables(place).await;
    let status = async || {
        let told = client.describe_time_to_live().table_name("plain").send().await.unwrap();
        let told = told.time_to_live_description.unwrap();
        (told.time_to_live_status.unwrap(), told.attribute_name)
    };
    assert_eq!(status().await, (TimeToLiveStatus::Disabled, None));
    let wanted = TimeToLiveSpecification::builder().attribute_name("expires_s").enabled(true).build().unwrap();
    let switch_on =
        || client.update_time_to_live().table_name("plain").time_to_live_specification(wanted.clone()).send();
    switch_on().await.unwrap();
    assert_eq!(status().await, (TimeToLiveStatus::Enabled, Some("expires_s".to_owned())));
    assert_eq!(switch_on().await.unwrap_err().into_service_error().meta().code(), Some("ValidationException"));
}

async fn a_dropped_table_is_gone(place: &impl Place) {
    let client = tables(place).await;
    client.delete_table().table_name("plain").send().await.unwrap();
    let missing = client.describe_table().table_name("plain").send().await.unwrap_err().into_service_error();
    assert!(missing.is_resource_not_found_exception());
    let missing = client.get_item().table_name("plain").set_key(Some(id("a"))).send().await.unwrap_err();
    assert!(missing.into_service_error().is_resource_not_found_exception());
    let missing = client.put_item().table_name("plain").set_item(Some(id("a"))).send().await.unwrap_err();
    assert!(missing.into_service_error().is_resource_not_found_exception());
}

async fn what_is_wrong_makes_no_table(place: &impl Place) {
    let client = place.dynamodb();
    let declared = |name: &str| {
        AttributeDefinition::builder().attribute_name(name).attribute_type(ScalarAttributeType::S).build().unwrap()
    };
    let table = || client.create_table().table_name("wrong").billing_mode(BillingMode::PayPerRequest);
    let undeclared = table().key_schema(hash("id")).attribute_definitions(declared("other"));
    let unused =
        table().key_schema(hash("id")).attribute_definitions(declared("id")).attribute_definitions(declared("other"));
    let index_undeclared = table()
        .key_schema(hash("id"))
        .attribute_definitions(declared("id"))
        .global_secondary_indexes(index("whole", "owner", "id", projection(ProjectionType::All, &[])));
    for (what, request) in [("undeclared", undeclared), ("unused", unused), ("index", index_undeclared)] {
        let refused = request.send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{what}");
    }
}

#[tokio::test]
async fn expired_items_go_when_swept() {
    let place = Fast::start().await;
    let client = tables(&place).await;
    let wanted = TimeToLiveSpecification::builder().attribute_name("expires_s").enabled(true).build().unwrap();
    client.update_time_to_live().table_name("plain").time_to_live_specification(wanted).send().await.unwrap();
    for (name, expires) in [("over", n(99)), ("yet", n(101)), ("text", s("1"))] {
        let item = item([("id", s(name)), ("expires_s", expires)]);
        client.put_item().table_name("plain").set_item(Some(item)).send().await.unwrap();
    }
    assert_eq!(place.dynamodb.sweep(100.0), 1);
    assert_eq!(client.scan().table_name("plain").send().await.unwrap().count(), 2);
}
