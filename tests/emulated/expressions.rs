//! Expressions that the service refuses. What they mean is tested beside their reader, and by the requests that carry them.

use super::place::{Place, tables};
use super::values::{id, n, s, with};

emulated! {
    both: [
        wrong_updates_are_refused,
    ],
    // What the functional emulator does otherwise is said beside each.
    ours: [
        // It answers a page of HTML to a syntax error.
        wrong_conditions_are_refused,
        // It does not mind unused names.
        unused_placeholders_are_refused,
        // It fails wherever the condition of an update without an update expression holds, whatever the condition says.
        conditions_hold_or_do_not,
    ]
}

async fn wrong_conditions_are_refused(place: &impl Place) {
    let client = tables(place).await;
    for text in ["id =", "id = :none", "#none = :v", "status = :v", "wrong(id)", "(id = :v", "id == :v", "id = 'v'"] {
        let put = client.put_item().table_name("plain").set_item(Some(id("a"))).condition_expression(text);
        let refused = put.expression_attribute_values(":v", s("x")).send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{text}: {refused:?}");
    }
}

async fn wrong_updates_are_refused(place: &impl Place) {
    let client = tables(place).await;
    client
        .put_item()
        .table_name("plain")
        .set_item(Some(with(id("a"), [("x", n(1)), ("t", s("t"))])))
        .send()
        .await
        .unwrap();
    for text in [
        "SET id = :v",
        "SET x = :v, x = :v",
        "SET x = y + :v",
        "SET x = t + :v",
        "SET q.r = :v",
        "SET name = :v",
        "SET x :v",
        "x = :v",
    ] {
        let update = client.update_item().table_name("plain").set_key(Some(id("a"))).update_expression(text);
        let refused = update.expression_attribute_values(":v", n(1)).send().await.unwrap_err().into_service_error();
        assert_eq!(refused.meta().code(), Some("ValidationException"), "{text}: {refused:?}");
    }
}

async fn unused_placeholders_are_refused(place: &impl Place) {
    let client = tables(place).await;
    let put = || {
        client.put_item().table_name("plain").set_item(Some(id("a"))).condition_expression("attribute_not_exists(id)")
    };
    let refused = put().expression_attribute_values(":unused", n(1)).send().await.unwrap_err().into_service_error();
    assert_eq!(refused.meta().code(), Some("ValidationException"));
    let refused = put().expression_attribute_names("#unused", "x").send().await.unwrap_err().into_service_error();
    assert_eq!(refused.meta().code(), Some("ValidationException"));
    put().send().await.unwrap();
}

async fn conditions_hold_or_do_not(place: &impl Place) {
    let client = tables(place).await;
    client
        .put_item()
        .table_name("plain")
        .set_item(Some(with(id("a"), [("x", n(10)), ("t", s("text"))])))
        .send()
        .await
        .unwrap();
    for (text, holds) in [
        ("x = :v OR t = :v", true),
        ("x > :v AND t = :v", false),
        ("NOT x <> :v", true),
        ("attribute_type(t, :kind) AND x = :v", false),
        ("size(t) < :v", true),
        ("x BETWEEN :v AND :v", true),
        ("x IN (:v, :v)", true),
        ("missing_one <> :v", true),
        ("missing_one = :v", false),
        ("attribute_exists(t) AND NOT (x < :v OR x > :v)", true),
    ] {
        let check = client.update_item().table_name("plain").set_key(Some(id("a"))).condition_expression(text);
        let check = check.expression_attribute_values(":v", n("1e1"));
        let check = if text.contains(":kind") { check.expression_attribute_values(":kind", s("N")) } else { check };
        let told = check.send().await.map_err(aws_sdk_dynamodb::error::SdkError::into_service_error);
        match told {
            Ok(_) => assert!(holds, "{text}"),
            Err(refused) => assert!(!holds && refused.is_conditional_check_failed_exception(), "{text}: {refused:?}"),
        }
    }
}
