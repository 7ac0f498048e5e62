//! The fields of a JSON object by name: each of its type, absent, or an error that names it.

use std::path::Path;

use serde_json::{Map, Value};

use crate::files::error::FileError;

/// The fields of an object in the file at `path`.
#[derive(Clone, Copy)]
pub(super) struct Fields<'a> {
    path: &'a Path,
    /// `None` stands for an empty object.
    object: Option<&'a Map<String, Value>>,
}

impl<'a> Fields<'a> {
    pub(super) fn new(path: &'a Path, object: &'a Map<String, Value>) -> Self {
        Self { path, object: Some(object) }
    }

    pub(super) fn none(path: &'a Path) -> Self {
        Self { path, object: None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.object.is_none_or(Map::is_empty)
    }

    /// Whether the field is there and neither `null` nor an empty list or object.
    pub(super) fn is_set(&self, name: &str) -> bool {
        match self.get(name) {
            None | Some(Value::Null) => false,
            Some(Value::Array(list)) => !list.is_empty(),
            Some(Value::Object(object)) if name != "quantization_config" => !object.is_empty(),
            Some(_) => true,
        }
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.object?.get(name)
    }

    /// What `read` makes of a field; an error where it makes nothing of it.
    fn read<T>(
        &self,
        name: &str,
        what: &str,
        read: impl Fn(&'a Value) -> Option<T>,
    ) -> Result<Option<T>, FileError> {
        let Some(value) = self.get(name) else {
            return Ok(None);
        };
        let wrong = || {
            let text: String = value.to_string().chars().take(80).collect();
            FileError::format(self.path, format!("{name} is {text}, not {what}"))
        };
        read(value).map(Some).ok_or_else(wrong)
    }

    /// A field that may be `null`, which is as if it were absent.
    fn unless_null<T>(
        &self,
        name: &str,
        read: impl Fn(&Self, &str) -> Result<Option<T>, FileError>,
    ) -> Result<Option<T>, FileError> {
        match self.get(name) {
            Some(Value::Null) => Ok(None),
            _ => read(self, name),
        }
    }

    pub(super) fn text(&self, name: &str) -> Result<Option<&'a str>, FileError> {
        self.read(name, "a text", Value::as_str)
    }

    /// `null` is taken for false, as by transformers 4.
    pub(super) fn flag(&self, name: &str) -> Result<Option<bool>, FileError> {
        self.unless_null(name, |fields, name| fields.read(name, "true or false", Value::as_bool))
    }

    /// A number from 0 on, which may be written with a point (`2048.0`).
    pub(super) fn number(&self, name: &str) -> Result<Option<usize>, FileError> {
        self.read(name, "a whole number", |value| whole(value)?.try_into().ok())
    }

    /// The numbers of tokens: one, a list of them, or none where it is `null`.
    pub(super) fn tokens(&self, name: &str) -> Result<Vec<u32>, FileError> {
        let token = |value: &Value| u32::try_from(whole(value)?).ok();
        let tokens = self.read(name, "the number of a token", |value| match value {
            Value::Null => Some(Vec::new()),
            Value::Array(list) => list.iter().map(token).collect(),
            one => Some(vec![token(one)?]),
        })?;
        Ok(tokens.unwrap_or_default())
    }

    pub(super) fn number_or_null(&self, name: &str) -> Result<Option<usize>, FileError> {
        self.unless_null(name, Self::number)
    }

    pub(super) fn float(&self, name: &str) -> Result<Option<f64>, FileError> {
        self.read(name, "a number", Value::as_f64)
    }

    pub(super) fn float_or_null(&self, name: &str) -> Result<Option<f64>, FileError> {
        self.unless_null(name, Self::float)
    }

    /// An object, which may be `null`.
    pub(super) fn object(&self, name: &str) -> Result<Option<Self>, FileError> {
        self.unless_null(name, |fields, name| {
            let object = fields.read(name, "an object", Value::as_object)?;
            Ok(object.map(|object| Self::new(fields.path, object)))
        })
    }
}

/// A whole number from 0 on, which may be written with a point.
fn whole(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| {
        let float = value.as_f64().filter(|float| float.fract() == 0.0)?;
        // Up to where every whole number is a float.
        (0.0..=9_007_199_254_740_992.0).contains(&float).then_some(float as u64)
    })
}
