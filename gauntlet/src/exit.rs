//! Ends a command: the exit codes (`gauntlet --help` lists them too), the one place that makes an exit code of an error,
//! and the last line on stderr.

use std::{io::Write, process::ExitCode};

use anyhow::Result;
use dataset::DataError;

/// The command did all of its work.
pub const SUCCESS: u8 = 0;

/// Something failed; the last line on stderr says what.
pub const FAILURE: u8 = 1;

/// The command line is wrong (clap's own code, with which it ends the process).
pub const USAGE: u8 = 2;

/// An audit found a difference between chain and replay.
pub const DISAGREEMENT: u8 = 3;

/// Ended by Ctrl-C or SIGTERM before its work was done (as shells count SIGINT).
pub const INTERRUPTED: u8 = 130;

/// Turns a command's result into the exit code of this process; an error becomes the last line on stderr.
pub fn code(result: Result<u8>) -> ExitCode {
    let code = result.unwrap_or_else(|error| {
        tell(&line(&error));
        match error.downcast_ref() {
            // A data set that was being made when somebody asked for the end: the next process resumes it.
            Some(DataError::Stopped(_)) => INTERRUPTED,
            _ => FAILURE,
        }
    });
    code.into()
}

/// Prints a line on stderr. Where nobody reads it any more (a terminal that was closed) nothing happens: a panic there
/// would cost a checkpoint.
pub fn tell(line: &str) {
    let _ = writeln!(std::io::stderr(), "gauntlet: {line}");
}

/// The error as one line: the action, and why it failed. A cause that the text before already ends with (as errors of
/// files do, which name the file and the cause) is not repeated.
fn line(error: &anyhow::Error) -> String {
    let mut line = String::new();
    for cause in error.chain().map(ToString::to_string) {
        if line.is_empty() {
            line = cause;
        } else if !line.ends_with(&cause) {
            line = format!("{line}: {cause}");
        }
    }
    line
}

#[cfg(test)]
mod tests {
    use anyhow::Context;

    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("a.txt: {source}")]
    struct Failed {
        source: std::io::Error,
    }

    #[test]
    fn no_cause_is_said_twice() {
        let failed = || Failed { source: std::io::Error::other("full") };
        let error = anyhow::Error::from(failed());
        assert_eq!(line(&error), "a.txt: full");
        let named = Err::<(), _>(failed()).context("cannot write").unwrap_err();
        assert_eq!(line(&named), "cannot write: a.txt: full");
        let plain = anyhow::anyhow!("full").context("a.txt");
        assert_eq!(line(&plain), "a.txt: full");
    }
}
