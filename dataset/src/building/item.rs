//! Names what a file gives, whatever its format: a document, or what is wrong with a line.

/// A document, or a line without one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Item {
    /// Text, not empty.
    Document(String),
    /// The line (or row), counted from 1, and what is wrong with it, or was with the document that follows or was before.
    Bad(u64, String),
    /// The line (or row), what was wrong with it, and its text, which has U+FFFD in those places.
    Mended(u64, String, String),
}
