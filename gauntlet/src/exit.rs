//! What the exit codes mean; `gauntlet --help` says the same.

/// Everything went well.
pub const SUCCESS: u8 = 0;

/// Something failed; the last line on stderr says what.
pub const FAILURE: u8 = 1;

/// The command line is wrong (clap's own code).
pub const USAGE: u8 = 2;

/// An audit found that chain and replay part.
pub const DISAGREEMENT: u8 = 3;

/// Ended by Ctrl-C or SIGTERM before its work was done (as shells count SIGINT).
pub const INTERRUPTED: u8 = 130;
