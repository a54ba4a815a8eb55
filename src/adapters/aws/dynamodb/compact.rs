//! A record's JSON without the fields that are null: a third of a small one, and with it one of the two write units of its item.

/// The members of the object, but for those whose value is null. `json` is an object without white space between its members,
/// as this program writes it.
pub(super) fn without_nulls(json: &[u8]) -> Vec<u8> {
    let mut kept = Vec::with_capacity(json.len());
    let mut rest = json.strip_prefix(b"{").unwrap_or_default();
    while !rest.is_empty() {
        let (member, after) = rest.split_at(end_of_member(rest));
        // A text that ends so has its quote behind it.
        if !member.is_empty() && !member.ends_with(b":null") {
            kept.push(if kept.is_empty() { b'{' } else { b',' });
            kept.extend_from_slice(member);
        }
        rest = after.get(1..).unwrap_or_default();
    }
    if kept.is_empty() {
        kept.push(b'{');
    }
    kept.push(b'}');
    kept
}

/// Where the comma or the brace behind the first member is.
fn end_of_member(json: &[u8]) -> usize {
    let (mut depth, mut in_text, mut is_escaped) = (0_u32, false, false);
    for (at, byte) in json.iter().enumerate() {
        if in_text {
            in_text = is_escaped || *byte != b'"';
            is_escaped = !is_escaped && *byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => depth += 1,
            b',' | b'}' if depth == 0 => return at,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    json.len()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::{Map, Value, json};

    use super::*;

    fn any_value() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            ".{0,8}".prop_map(Value::from),
            Just(json!("a\",:null}]{[\\")),
        ];
        leaf.prop_recursive(3, 16, 4, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                prop::collection::btree_map(".{0,4}", inner, 0..4)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn nothing_but_nulls_is_left_out(members in prop::collection::btree_map(".{0,6}", any_value(), 0..6)) {
            let whole: Map<String, Value> = members.into_iter().collect();
            let compact = without_nulls(&serde_json::to_vec(&whole).unwrap());
            let read: Map<String, Value> = serde_json::from_slice(&compact).unwrap();
            let wanted: Map<String, Value> = whole.into_iter().filter(|(_, value)| !value.is_null()).collect();
            prop_assert_eq!(read, wanted);
        }
    }
}
