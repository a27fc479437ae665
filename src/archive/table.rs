//! Tables as Parquet: rows -> the bytes of a file, and back.
//!
//! One row group per file, Snappy, dictionaries for text. Written column by column from the [`schema`]'s own
//! list, so there is nothing else that could disagree with it.
//!
//! [`schema`]: super::schema

use std::sync::Arc;

use bytes::Bytes;
use parquet::basic::{Compression, LogicalType, Repetition, TimeUnit, Type as Physical};
use parquet::column::writer::ColumnWriter;
use parquet::data_type::ByteArray;
use parquet::errors::ParquetError;
use parquet::file::metadata::KeyValue;
use parquet::file::properties::WriterProperties;
use parquet::file::reader::{FileReader as _, SerializedFileReader};
use parquet::file::writer::{SerializedColumnWriter, SerializedFileWriter};
use parquet::record::Field;
use parquet::schema::types::Type;

use super::origin::Origin;
use super::schema::{Column, Kind, Value};

/// The file with `rows`, and `notes` as its key-value metadata.
///
/// # Errors
/// [`ParquetError`], in practice never.
pub(super) fn write_table<R>(
    columns: &[Column<R>],
    rows: &[R],
    origin: &Origin,
    notes: Vec<(String, String)>,
) -> Result<Bytes, ParquetError> {
    let fields = columns.iter().map(field).collect::<Result<Vec<_>, _>>()?;
    let schema = Type::group_type_builder("undertone").with_fields(fields).build()?;
    let notes = notes.into_iter().map(|(key, value)| KeyValue::new(key, value)).collect();
    let properties = WriterProperties::builder()
        .set_compression(Compression::SNAPPY)
        .set_key_value_metadata(Some(notes))
        .set_created_by(concat!("undertone version ", env!("CARGO_PKG_VERSION")).to_owned())
        .build();
    let mut file = SerializedFileWriter::new(Vec::new(), Arc::new(schema), Arc::new(properties))?;
    let mut group = file.next_row_group()?;
    for column in columns {
        let Some(mut writer) = group.next_column()? else { break };
        write_column(column, rows, origin, &mut writer)?;
        writer.close()?;
    }
    group.close()?;
    Ok(file.into_inner()?.into())
}

fn field<R>(column: &Column<R>) -> Result<Arc<Type>, ParquetError> {
    let (physical, logical) = match column.kind {
        Kind::Text => (Physical::BYTE_ARRAY, Some(LogicalType::String)),
        Kind::Int => (Physical::INT32, None),
        Kind::Long => (Physical::INT64, None),
        Kind::Float => (Physical::FLOAT, None),
        Kind::Double => (Physical::DOUBLE, None),
        Kind::Time => (Physical::INT64, Some(LogicalType::timestamp(true, TimeUnit::MICROS))),
    };
    let repetition = if column.required { Repetition::REQUIRED } else { Repetition::OPTIONAL };
    let built = Type::primitive_type_builder(column.name, physical)
        .with_logical_type(logical)
        .with_repetition(repetition)
        .build()?;
    Ok(Arc::new(built))
}

/// The values that are there, and a level for each row: 1 where one is.
fn gather<'a, R, T>(
    column: &Column<R>,
    rows: &'a [R],
    origin: &'a Origin,
    own: impl Fn(Value<'a>) -> Option<T>,
) -> (Vec<T>, Option<Vec<i16>>) {
    let of = |row: &'a R| (column.of)(row, origin).and_then(&own);
    let values: Vec<Option<T>> = rows.iter().map(of).collect();
    let levels = || values.iter().map(|value| i16::from(value.is_some())).collect();
    let levels = (!column.required).then(levels);
    (values.into_iter().flatten().collect(), levels)
}

fn write_column<R>(
    column: &Column<R>,
    rows: &[R],
    origin: &Origin,
    writer: &mut SerializedColumnWriter<'_>,
) -> Result<(), ParquetError> {
    macro_rules! put {
        ($to:expr, $own:expr) => {{
            let (values, levels) = gather(column, rows, origin, $own);
            $to.write_batch(&values, levels.as_deref(), None)?;
        }};
    }
    match writer.untyped() {
        ColumnWriter::Int32ColumnWriter(to) => put!(to, |value| match value {
            Value::Int(value) => Some(value),
            _ => None,
        }),
        ColumnWriter::Int64ColumnWriter(to) => put!(to, |value| match value {
            Value::Long(value) => Some(value),
            _ => None,
        }),
        ColumnWriter::FloatColumnWriter(to) => put!(to, |value| match value {
            Value::Float(value) => Some(value),
            _ => None,
        }),
        ColumnWriter::DoubleColumnWriter(to) => put!(to, |value| match value {
            Value::Double(value) => Some(value),
            _ => None,
        }),
        ColumnWriter::ByteArrayColumnWriter(to) => put!(to, |value| match value {
            Value::Text(text) => Some(ByteArray::from(text)),
            _ => None,
        }),
        _ => return Err(ParquetError::NYI(format!("column {}", column.name))),
    }
    Ok(())
}

/// A value that was read.
#[derive(Debug, Clone, PartialEq)]
pub enum Cell {
    /// None.
    Null,
    /// Text.
    Text(String),
    /// A whole number, or a time in microseconds since 1970 UTC.
    Whole(i64),
    /// Any other number.
    Number(f64),
}

impl Cell {
    /// Its text.
    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Its whole number.
    pub fn whole(&self) -> Option<i64> {
        match self {
            Self::Whole(number) => Some(*number),
            _ => None,
        }
    }
}

impl From<Field> for Cell {
    fn from(field: Field) -> Self {
        match field {
            Field::Str(text) => Self::Text(text),
            Field::Int(number) => Self::Whole(number.into()),
            Field::Long(number) | Field::TimestampMicros(number) => Self::Whole(number),
            Field::Float(number) => Self::Number(number.into()),
            Field::Double(number) => Self::Number(number),
            _ => Self::Null,
        }
    }
}

/// The rows of a file, each with the columns `names` in that order. All columns for no names.
///
/// # Errors
/// [`ParquetError`] if it is none, or has no such column.
pub fn read_table(bytes: Bytes, names: &[&str]) -> Result<Vec<Vec<Cell>>, ParquetError> {
    let mut rows = Vec::new();
    each_row(bytes, names, |row| rows.push(row))?;
    Ok(rows)
}

/// As [`read_table`], row by row.
///
/// # Errors
/// As there.
pub(super) fn each_row(
    bytes: Bytes,
    names: &[&str],
    mut each: impl FnMut(Vec<Cell>),
) -> Result<(), ParquetError> {
    let reader = SerializedFileReader::new(bytes)?;
    let schema = reader.metadata().file_metadata().schema();
    let mut fields = schema.get_fields().to_vec();
    if !names.is_empty() {
        let named = |name: &&str| {
            let missing = || ParquetError::General(format!("it has no column {name}"));
            fields.iter().find(|f| f.name() == *name).cloned().ok_or_else(missing)
        };
        fields = names.iter().map(named).collect::<Result<_, _>>()?;
    }
    let projection = Type::group_type_builder(schema.name()).with_fields(fields).build()?;
    for row in reader.get_row_iter(Some(projection))? {
        // The reader gives the columns in the file's order.
        let mut columns = row?.into_columns();
        columns.sort_by_key(|(name, _)| names.iter().position(|known| known == name));
        each(columns.into_iter().map(|(_, field)| field.into()).collect());
    }
    Ok(())
}

/// What a file says of itself under `key`.
///
/// # Errors
/// [`ParquetError`] if it is no such file.
pub(super) fn note(bytes: Bytes, key: &str) -> Result<Option<String>, ParquetError> {
    let reader = SerializedFileReader::new(bytes)?;
    let notes = reader.metadata().file_metadata().key_value_metadata().cloned();
    let found = notes.unwrap_or_default().into_iter().find(|note| note.key == key);
    Ok(found.and_then(|note| note.value))
}
