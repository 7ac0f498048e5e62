//! Prints for people: lines, bars, amounts and tables. Knows none of the commands.

mod amounts;
mod byte_bar;
mod table;

use std::io::Write;

pub(crate) use self::{
    amounts::{bytes, units, UNIT},
    byte_bar::ByteBar,
    table::aligned,
};

/// Writes a line to stdout. That nobody reads it is no reason to end.
pub(crate) fn print(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
