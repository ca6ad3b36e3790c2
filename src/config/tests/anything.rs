//! Anything at all in the place of an option.

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};
use serde_yaml::Value;

use super::example;
use super::mistakes::said_of;

/// Puts a value somewhere into a tree: `at` chooses where.
fn put(tree: &mut Value, at: &[u8], value: Value) {
    let Some((first, rest)) = at.split_first() else { return *tree = value };
    let chosen = match tree {
        Value::Mapping(map) if !map.is_empty() => {
            let nth = usize::from(*first) % map.len();
            map.values_mut().nth(nth)
        }
        Value::Sequence(list) if !list.is_empty() => {
            let index = usize::from(*first) % list.len();
            list.get_mut(index)
        }
        _ => None,
    };
    match chosen {
        Some(chosen) => put(chosen, rest, value),
        None => *tree = value,
    }
}

proptest! {
    /// Whatever stands in the place of an option: it loads, or something is said, and the schema and the structs agree.
    #[test]
    fn any_value_anywhere_is_taken_or_told(
        puts in proptest::collection::vec((proptest::collection::vec(any::<u8>(), 1..5), a_value()), 1..4),
    ) {
        let mut tree: Value = serde_yaml::from_str(&example::uncommented()).unwrap();
        for (at, value) in puts {
            put(&mut tree, &at, value);
        }
        let said = said_of(&serde_yaml::to_string(&tree).unwrap());
        assert!(!said.is_empty() && !said.contains("bug in Keyward") && !said.contains("is not complete"), "{said}");
    }
}

proptest! {
    /// Whatever the text is: it is read, or something is said.
    #[test]
    fn any_text_is_taken_or_told(text in "[-a:{}\\[\\]&*!|>'\"#%@,\n \t?<1é]{0,60}") {
        assert!(said_of(&text).contains(": ") || said_of(&text).contains(" is empty"), "{text}");
    }
}

fn a_value() -> impl Strategy<Value = Value> {
    prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        (0u64..600).prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        "[ -~é\n]{0,12}".prop_map(Value::from),
        "(auto|xml|text|key|none|read|hex|live|user|10s|32KiB|/a|/\\{\\*r\\})".prop_map(Value::from),
        Just(Value::Sequence(vec![Value::from("/a"), Value::Null, Value::from(1)])),
        Just(serde_yaml::from_str("{ path: /a, file: x, a: 1, listen: 127.0.0.1:0 }").unwrap()),
    ]
}
