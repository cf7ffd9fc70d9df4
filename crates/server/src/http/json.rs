//! JSON that says one thing: a member that stands twice is refused, since readers differ in which of the two they take,
//! and what a person or a proxy saw on the way must be what is sent to an aircraft.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

/// Reads one JSON value.
///
/// # Errors
/// When the text is not JSON, nested deeper than 128 levels, or names a member twice.
pub fn read(text: &str) -> Result<Value, serde_json::Error> {
    serde_json::from_str::<Plain>(text).map(|plain| plain.0)
}

struct Plain(Value);

impl<'de> Deserialize<'de> for Plain {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Reader).map(Self)
    }
}

struct Reader;

impl<'de> Visitor<'de> for Reader {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, flag: bool) -> Result<Value, E> {
        Ok(flag.into())
    }

    fn visit_i64<E>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(Plain(item)) = from.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut from: A) -> Result<Value, A::Error> {
        let mut members = Map::new();
        while let Some(name) = from.next_key::<String>()? {
            if members.contains_key(&name) {
                return Err(A::Error::custom(format_args!(
                    "a member stands twice: {}",
                    super::problem::cut(&name)
                )));
            }
            let Plain(value) = from.next_value()?;
            members.insert(name, value);
        }
        Ok(Value::Object(members))
    }
}

#[cfg(test)]
mod tests {
    use super::read;

    #[test]
    fn it_reads_what_serde_json_reads_but_for_doubled_members() {
        for text in [
            r#"{"a":[1,-1,1.5,1e300,18446744073709551615,"x\u00e9\n",true,false,null,{}],"b":{"a":1}}"#,
            " [ ] ",
            "0",
            "-0.0",
            "123456789012345678901234567890",
            "\"\"",
            "",
            "{",
            "nul",
            "1e999",
            "{} {}",
            "\"\\ud800\"",
        ] {
            let (ours, theirs) = (read(text), serde_json::from_str::<serde_json::Value>(text));
            assert_eq!(ours.ok(), theirs.ok(), "{text}");
        }
        for text in [r#"{"a":1,"a":1}"#, r#"[{"x":{"a":1,"b":2,"\u0061":3}}]"#] {
            let error = read(text).map_err(|error| error.to_string());
            assert!(
                error.is_err_and(|error| error.starts_with("a member stands twice: a at line 1")),
                "{text}"
            );
        }
        assert!(read(&"[".repeat(100_000)).is_err());
    }
}
