//! Prints for people: lines, bars, sizes and tables. Knows none of the commands.

mod byte_bar;
mod bytes;
mod table;

use std::io::Write;

pub(crate) use self::{byte_bar::ByteBar, bytes::bytes, table::aligned};
pub(crate) use node_client::chain::{parse_units, units, UNIT};

/// Writes a line to stdout. That nobody reads it is no reason to end.
pub(crate) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
