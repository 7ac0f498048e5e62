//! Names what a file gives, whatever its format: a document, or a line without one.

/// A document, or a line without one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// Text, not empty.
    Document(String),
    /// The line (or row), counted from 1, and what is wrong with it.
    Bad(u64, String),
}
