//! Whether a value is what a JSON schema describes: the keywords that the schema of scenario files uses, and no others.

use serde_json::Value;

/// Why `value` is not what `schema` describes, if it is not. `root` is what references are relative to.
///
/// # Panics
/// If the schema has a keyword that is not known here: it would be passed over.
pub(super) fn refuse(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let keywords = match schema {
        Value::Object(keywords) => keywords,
        Value::Bool(is_allowed) => return (!is_allowed).then(|| format!("{value} is not wanted")),
        _ => unreachable!("{schema} is no schema"),
    };
    keywords.iter().find_map(|(keyword, argument)| {
        let is_met = match keyword.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" | "format" | "additionalProperties" => true,
            "$ref" => return refuse(root, resolve(root, argument), value),
            "type" => has_type(argument, value),
            "const" => argument == value,
            "enum" => list(argument).contains(value),
            "anyOf" => list(argument).iter().any(|one| refuse(root, one, value).is_none()),
            "oneOf" => list(argument).iter().filter(|one| refuse(root, one, value).is_none()).count() == 1,
            "allOf" => return list(argument).iter().find_map(|one| refuse(root, one, value)),
            "properties" => return refuse_properties(root, schema, value),
            "required" => list(argument).iter().all(|name| value.get(name.as_str().expect("a name")).is_some()),
            "items" => return refuse_items(root, schema, value),
            "prefixItems" => return refuse_prefix(root, argument, value),
            "minItems" => value.as_array().is_none_or(|items| items.len() as u64 >= number(argument)),
            "maxItems" => value.as_array().is_none_or(|items| items.len() as u64 <= number(argument)),
            "minimum" => !value.is_number() || value.as_u64().is_some_and(|found| found >= number(argument)),
            "maximum" => !value.is_number() || value.as_u64().is_some_and(|found| found <= number(argument)),
            "pattern" => value.as_str().is_none_or(|text| matches(argument.as_str().expect("a pattern"), text)),
            other => unreachable!("the keyword `{other}` is not known here"),
        };
        (!is_met).then(|| format!("{value} against `{keyword}`: {argument}"))
    })
}

fn list(argument: &Value) -> &[Value] {
    argument.as_array().expect("a list")
}

fn number(argument: &Value) -> u64 {
    argument.as_u64().expect("a number that is not negative")
}

fn resolve<'a>(root: &'a Value, reference: &Value) -> &'a Value {
    let path = reference.as_str().and_then(|text| text.strip_prefix('#')).expect("a reference into the schema itself");
    root.pointer(path).expect("what is referred to is there")
}

fn has_type(argument: &Value, value: &Value) -> bool {
    let is = |name: &Value| match name.as_str().expect("a type") {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_u64() || value.is_i64(),
        "null" => value.is_null(),
        other => unreachable!("the type `{other}` is not known here"),
    };
    argument.as_array().map_or_else(|| is(argument), |names| names.iter().any(is))
}

fn refuse_properties(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let (known, rest) = (&schema["properties"], schema.get("additionalProperties"));
    value.as_object()?.iter().find_map(|(name, part)| match (known.get(name), rest) {
        (Some(known), _) | (None, Some(known)) => refuse(root, known, part).map(|reason| format!("`{name}`: {reason}")),
        (None, None) => None,
    })
}

/// What comes after the prefix.
fn refuse_items(root: &Value, schema: &Value, value: &Value) -> Option<String> {
    let prefix = schema.get("prefixItems").map_or(0, |prefix| list(prefix).len());
    value.as_array()?.iter().skip(prefix).find_map(|item| refuse(root, &schema["items"], item))
}

fn refuse_prefix(root: &Value, prefix: &Value, value: &Value) -> Option<String> {
    list(prefix).iter().zip(value.as_array()?).find_map(|(schema, item)| refuse(root, schema, item))
}

/// The two patterns that there are.
fn matches(pattern: &str, text: &str) -> bool {
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match pattern {
        "^[0-9]+(ns|us|ms|s|m)$" => {
            let unit = text.trim_start_matches(|letter: char| letter.is_ascii_digit());
            is_number(&text[..text.len() - unit.len()]) && ["ns", "us", "ms", "s", "m"].contains(&unit)
        }
        "^[+-][0-9]+$" => text.strip_prefix(['+', '-']).is_some_and(is_number),
        other => unreachable!("the pattern `{other}` is not known here"),
    }
}
