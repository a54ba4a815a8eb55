//! What expressions mean: the tests of the reader and of the rooms that use its trees.

use std::collections::BTreeMap;

use serde_json::{Value as Json, json};

use super::grammar::Parser;
use super::path::PathSet;
use super::refusal::Answer;
use super::tree::Placeholders;
use super::value::{Attributes, Value};

fn attributes(json: Json) -> Attributes {
    serde_json::from_value(json).unwrap()
}

fn item() -> Attributes {
    attributes(json!({
        "id": {"S": "i-1"}, "n": {"N": "10"}, "flag": {"BOOL": true}, "nothing": {"NULL": true},
        "tags": {"SS": ["a", "b"]}, "scores": {"NS": ["1", "2"]}, "body": {"B": "AAEC"},
        "elems": {"L": [{"N": "1"}, {"S": "two"}, {"M": {"deep": {"L": [{"S": "x"}]}}}]},
        "doc": {"M": {"a": {"N": "1"}, "b.c": {"S": "dotted"}}},
    }))
}

fn values() -> Attributes {
    attributes(json!({
        ":1": {"N": "1"}, ":9": {"N": "9.0"}, ":10": {"N": "1e1"}, ":11": {"N": "11"}, ":i": {"S": "i-"}, ":two": {"S": "two"},
        ":a": {"S": "a"}, ":x": {"S": "x"}, ":t": {"BOOL": true}, ":S": {"S": "S"}, ":NS": {"S": "NS"}, ":3": {"N": "3"},
        ":id": {"S": "i-1"}, ":bytes": {"B": "AAE="}, ":l": {"L": [{"S": "z"}]}, ":ab": {"SS": ["b", "a"]}, ":bc": {"SS": ["b", "c"]},
        ":empty": {"L": []}, ":bad": {"S": "STRING"},
    }))
}

fn names() -> BTreeMap<String, String> {
    [("#n", "n"), ("#dotted", "b.c"), ("#status", "status")].map(|(k, v)| (k.to_owned(), v.to_owned())).into()
}

fn holds(text: &str) -> Answer<bool> {
    let (names, values) = (names(), values());
    let placeholders = Placeholders::new(&names, &values).unwrap();
    Ok(Parser::new("ConditionExpression", text, &placeholders)?.condition()?.holds(&item()))
}

fn updated(text: &str) -> Answer<Json> {
    let (names, values, item) = (names(), values(), item());
    let placeholders = Placeholders::new(&names, &values).unwrap();
    let update = Parser::new("UpdateExpression", text, &placeholders)?.update()?;
    let changed = update.changed(&["id"])?;
    let after = update.apply(&item)?;
    Ok(serde_json::to_value(changed.project(&after)).unwrap())
}

fn projected(text: &str) -> Answer<Json> {
    let (names, values) = (names(), values());
    let placeholders = Placeholders::new(&names, &values).unwrap();
    let mut set = PathSet::default();
    for path in Parser::new("ProjectionExpression", text, &placeholders)?.projection()? {
        set.add(&path, "ProjectionExpression")?;
    }
    Ok(serde_json::to_value(set.project(&item())).unwrap())
}

#[test]
fn conditions_that_hold() {
    for text in [
        "id = :id",
        "#n = :10 and n > :9 AND n >= :10 AND n < :11 AND n <= :10 AND n <> :9",
        "absent <> :1",
        "NOT absent = :1",
        "n BETWEEN :9 AND :11 AND attribute_exists(id)",
        "n IN (:9, :10)",
        "attribute_not_exists(absent) AND attribute_not_exists(doc.absent) AND attribute_not_exists(elems[3])",
        "attribute_exists(elems[2].deep[0]) AND elems[2].deep[0] = :x AND elems[0] = :1",
        "doc.#dotted <> :a AND attribute_exists(doc.#dotted) AND doc.a = :1",
        "attribute_type(id, :S) AND attribute_type(scores, :NS) AND NOT attribute_type(n, :S)",
        "begins_with(id, :i) AND begins_with(body, :bytes) AND NOT begins_with(n, :i)",
        "contains(id, :i) AND contains(tags, :a) AND contains(scores, :1) AND contains(elems, :two) AND contains(body, :bytes)",
        "NOT contains(tags, :x) AND NOT contains(elems, :x)",
        "size(id) = :3 AND size(elems) = :3 AND size(body) = :3 AND size(tags) < :3 AND NOT size(n) = :1",
        "tags = :ab AND flag = :t",
        // AND binds closer than OR, NOT closest.
        "id = :id OR id = :x AND id = :x",
        "NOT (id = :id AND id = :x)",
        "(id = :x OR id = :id) AND (n = :10)",
        "NOT NOT id = :id",
        ":id = id",
    ] {
        assert_eq!(holds(text), Ok(true), "{text}");
    }
}

#[test]
fn conditions_that_do_not_hold() {
    for text in [
        "absent = :1",
        "absent < :1",
        "id = :1",
        "id < :1",
        "(id = :id OR id = :id) AND id = :x",
        "NOT id = :id OR id = :x",
        "n BETWEEN :11 AND :9",
        "absent IN (:9, :10)",
        "flag = :1",
        "id.deep = :x",
        "elems[3] = :x",
        "contains(absent, :a)",
    ] {
        assert_eq!(holds(text), Ok(false), "{text}");
    }
}

#[test]
fn conditions_that_are_refused() {
    for (text, why) in [
        ("", "can not be empty"),
        ("id", "Syntax error; token: \"<EOF>\""),
        ("id = ", "Syntax error"),
        ("id = :id AND", "Syntax error"),
        ("id == :id", "Syntax error; token: \"=\""),
        ("(id = :id", "Syntax error"),
        ("id = :id)", "Syntax error; token: \")\""),
        ("((id = :id))", "redundant parentheses"),
        ("id = :none", "attribute value used in expression is not defined; attribute value: :none"),
        ("#none = :id", "attribute name used in the document path is not defined; attribute name: #none"),
        ("status = :id", "reserved keyword; reserved keyword: status"),
        ("doc.Name = :id", "reserved keyword: Name"),
        ("exists(id)", "Invalid function name; function: exists"),
        ("attribute_exists(:id)", "Syntax error"),
        ("attribute_type(id, :bad)", "Invalid attribute type name"),
        ("begins_with(id, :1)", "operator or function: begins_with, operand type: N"),
        ("n < :t", "operator or function: <, operand type: BOOL"),
        ("n = n", "must be distinct"),
        ("id = 'x'", "Syntax error"),
        ("elems[x] = :id", "Syntax error"),
    ] {
        let refusal = holds(text).unwrap_err();
        assert!(refusal.message.contains(why), "{text}: {}", refusal.message);
    }
    let deep = format!("{} id = :id", "NOT ".repeat(100));
    assert!(holds(&deep).unwrap_err().message.contains("nested too deeply"));
    let long = format!("id = :id{}", " OR id = :id".repeat(400));
    assert!(holds(&long).unwrap_err().message.contains("Expression size has exceeded"));
}

#[test]
fn updates() {
    for (text, changed) in [
        ("SET n = n + :1, fresh = :x", json!({"n": {"N": "11"}, "fresh": {"S": "x"}})),
        ("set n = :1 - n", json!({"n": {"N": "-9"}})),
        ("SET c = if_not_exists(c, :10) + :1", json!({"c": {"N": "11"}})),
        ("SET n = if_not_exists(n, :1)", json!({"n": {"N": "10"}})),
        ("SET l = list_append(if_not_exists(l, :empty), :l)", json!({"l": {"L": [{"S": "z"}]}})),
        // Right sides see what was: the two swap.
        ("SET id2 = n, n = id", json!({"id2": {"N": "10"}, "n": {"S": "i-1"}})),
        ("SET doc.a = doc.a + :1, doc.#status = :x", json!({"doc": {"M": {"a": {"N": "2"}, "status": {"S": "x"}}}})),
        ("SET elems[0] = :x, elems[9] = :two", json!({"elems": {"L": [{"S": "x"}]}})),
        ("REMOVE n, doc.a, absent", json!({})),
        (
            "ADD n :1, tags :bc, visits :1",
            json!({"n": {"N": "11"}, "tags": {"SS": ["a", "b", "c"]}, "visits": {"N": "1"}}),
        ),
        ("DELETE tags :bc", json!({"tags": {"SS": ["a"]}})),
        ("DELETE tags :ab, absent :ab", json!({})),
        (
            "SET a = :1 REMOVE n ADD visits :1 DELETE tags :bc",
            json!({"a": {"N": "1"}, "visits": {"N": "1"}, "tags": {"SS": ["a"]}}),
        ),
    ] {
        assert_eq!(updated(text).as_ref(), Ok(&changed), "{text}");
    }
}

#[test]
fn removed_elements_are_those_that_stood_there_before() {
    let (names, values) = (BTreeMap::new(), Attributes::new());
    let placeholders = Placeholders::new(&names, &values).unwrap();
    let update = Parser::new("UpdateExpression", "REMOVE elems[0], elems[1]", &placeholders).unwrap().update().unwrap();
    let Value::L(left) = &update.apply(&item()).unwrap()["elems"] else { panic!("no list") };
    assert!(matches!(&left[..], [Value::M(_)]), "{left:?}");
}

#[test]
fn updates_that_are_refused() {
    for (text, why) in [
        ("SET id = :x", "Cannot update attribute id. This attribute is part of the key"),
        ("SET n = :1, n = :9", "Two document paths overlap"),
        ("SET doc.a = :1 REMOVE doc", "Two document paths overlap"),
        ("SET doc.a = :1 REMOVE doc[0]", "Two document paths conflict"),
        ("SET n = absent", "refers to an attribute that does not exist"),
        ("SET n = id + :1", "incorrect data type"),
        ("SET n = list_append(n, :l)", "incorrect data type"),
        ("SET absent.a = :1", "document path provided in the update expression is invalid"),
        ("SET n.a = :1", "document path provided in the update expression is invalid"),
        ("ADD id2 :x", "operator: ADD, operand type: S"),
        ("ADD id2 :x, n", "Syntax error"),
        ("DELETE n :bc", "incorrect data type"),
        ("SET a = :1 SET b = :1", "can only be used once"),
        ("PUT a = :1", "Syntax error"),
        ("SET a = add(n, :1)", "Invalid function name"),
        ("SET a :1", "Syntax error"),
        ("SET a = :1,", "Syntax error"),
        ("SET name = :x", "reserved keyword"),
    ] {
        let refusal = updated(text).unwrap_err();
        assert!(refusal.message.contains(why), "{text}: {}", refusal.message);
    }
}

#[test]
fn projections_keep_the_shape_and_close_gaps() {
    let found = projected("id, elems[0], elems[2].deep, doc.#dotted, absent, elems[7], doc.absent.x").unwrap();
    assert_eq!(
        found,
        json!({
            "id": {"S": "i-1"}, "doc": {"M": {"b.c": {"S": "dotted"}}},
            "elems": {"L": [{"N": "1"}, {"M": {"deep": {"L": [{"S": "x"}]}}}]},
        })
    );
    assert!(projected("doc, doc.a").unwrap_err().message.contains("overlap"));
    assert!(projected("doc.a, doc.a").unwrap_err().message.contains("overlap"));
    assert!(projected("id,").unwrap_err().message.contains("Syntax error"));
}

#[test]
fn unused_placeholders_are_refused() {
    let names = BTreeMap::from([("#a".to_owned(), "a".to_owned())]);
    let values = attributes(json!({":a": {"N": "1"}, ":b": {"N": "2"}}));
    let placeholders = Placeholders::new(&names, &values).unwrap();
    Parser::new("ConditionExpression", "a = :a", &placeholders).unwrap().condition().unwrap();
    let refused = |placeholders: &Placeholders<'_>| placeholders.all_used().unwrap_err().message;
    assert!(refused(&placeholders).ends_with("ExpressionAttributeNames unused in expressions: keys: {#a}"));
    Parser::new("ConditionExpression", "#a = :a", &placeholders).unwrap().condition().unwrap();
    assert!(refused(&placeholders).ends_with("ExpressionAttributeValues unused in expressions: keys: {:b}"));
    Parser::new("ConditionExpression", "#a = :b", &placeholders).unwrap().condition().unwrap();
    placeholders.all_used().unwrap();
}
