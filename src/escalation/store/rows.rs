//! Rows as ours, documents as JSON.

use sqlx::any::AnyRow;
use sqlx::{Any, Decode, Row as _, Type};

use super::StoreError;
use crate::escalation::life::{Escalation, Occurrence};

/// A column by its place.
pub(super) fn column<'r, T: Decode<'r, Any> + Type<Any>>(
    row: &'r AnyRow,
    index: usize,
) -> Result<T, StoreError> {
    Ok(row.try_get::<T, usize>(index)?)
}

pub(super) fn escalation(text: &str) -> Result<Escalation, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Document {
        what: "an escalation".to_owned(),
        problem: error.to_string(),
    })
}

pub(super) fn occurrence(text: &str) -> Result<Occurrence, StoreError> {
    serde_json::from_str(text).map_err(|error| StoreError::Document {
        what: "an occurrence".to_owned(),
        problem: error.to_string(),
    })
}

pub(super) fn document(value: &impl serde::Serialize) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|error| StoreError::Document {
        what: "what is written".to_owned(),
        problem: error.to_string(),
    })
}
