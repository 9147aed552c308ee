//! YAML or JSON text to plain values, within bounds: an alias bomb costs no more than the nodes it may make.

use std::cell::Cell;
use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

use super::{DOCUMENT_BYTES_MAX, DocumentError, DocumentErrors};

/// Most values in one text, aliases expanded.
const NODES_MAX: usize = 200_000;
/// Most bytes of strings in one text, aliases expanded.
const STRING_BYTES_MAX: usize = 8 << 20;
/// Deepest nesting of lists and maps.
const DEPTH_MAX: usize = 64;

/// All documents of `text`; a JSON array stands for its elements, empty documents are left out.
pub(super) fn read_all(text: &str) -> Result<Vec<Value>, DocumentErrors> {
    if text.len() > DOCUMENT_BYTES_MAX {
        return Err(DocumentErrors::one(DocumentError::text(format!(
            "the text has {} bytes, more than {DOCUMENT_BYTES_MAX}",
            text.len()
        ))));
    }
    let mut values = Vec::new();
    // What is not JSON after all is read as YAML, which knows the place of the fault.
    if text.trim_start().starts_with(['{', '['])
        && let Ok(value) = read_json(text, &Budget::full())
    {
        values.push(value);
    } else {
        let budget = Budget::full();
        for document in serde_yaml::Deserializer::from_str(text) {
            let value = Node { budget: &budget, depth: 0 }.deserialize(document).map_err(|error| {
                let location = error.location().map(|at| (at.line(), at.column()));
                DocumentErrors::one(DocumentError { location, ..DocumentError::text(plain_message(&error)) })
            })?;
            values.push(value);
        }
    }
    let flat = values.into_iter().flat_map(|value| match value {
        Value::Array(items) => items,
        other => vec![other],
    });
    Ok(flat.filter(|value| !value.is_null()).collect())
}

fn read_json(text: &str, budget: &Budget) -> Result<Value, serde_json::Error> {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let value = Node { budget, depth: 0 }.deserialize(&mut deserializer)?;
    deserializer.end()?;
    Ok(value)
}

/// The parser appends " at line 3 column 5", which we show in front.
fn plain_message(error: &serde_yaml::Error) -> String {
    let text = error.to_string();
    let text = text.split(" at line ").next().unwrap_or(&text);
    text.lines().next().unwrap_or("not YAML").to_owned()
}

struct Budget {
    nodes: Cell<usize>,
    bytes: Cell<usize>,
}

impl Budget {
    fn full() -> Self {
        Self { nodes: Cell::new(NODES_MAX), bytes: Cell::new(STRING_BYTES_MAX) }
    }

    fn spend<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match (self.nodes.get().checked_sub(1), self.bytes.get().checked_sub(bytes)) {
            (Some(nodes), Some(left)) => {
                self.nodes.set(nodes);
                self.bytes.set(left);
                Ok(())
            }
            _ => Err(E::custom("the text grows beyond the allowed size when its aliases are expanded")),
        }
    }
}

#[derive(Clone, Copy)]
struct Node<'b> {
    budget: &'b Budget,
    depth: usize,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl Node<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        match self.depth < DEPTH_MAX {
            true => Ok(Self { depth: self.depth + 1, ..self }),
            false => Err(E::custom("lists and maps nest too deeply")),
        }
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a plain value without tags")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.budget.spend(0)?;
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.budget.spend(0)?;
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        self.budget.spend(0)?;
        Ok(Value::from(value))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        self.budget.spend(0)?;
        Ok(Value::from(value))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        self.budget.spend(0)?;
        Number::from_f64(value).map(Value::Number).ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        self.budget.spend(value.len())?;
        Ok(Value::String(value.to_owned()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        self.budget.spend(0)?;
        let inner = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inner)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        self.budget.spend(0)?;
        let inner = self.deeper()?;
        let mut fields = Map::new();
        while let Some(Key(key)) = map.next_key()? {
            self.budget.spend(key.len())?;
            if fields.contains_key(&key) {
                return Err(A::Error::custom(format!("the key `{key}` is given twice")));
            }
            let value = map.next_value_seed(inner)?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

/// A map key; `*: *` and `8: x` are read as their text.
#[derive(Deserialize)]
#[serde(transparent)]
struct Key(String);
