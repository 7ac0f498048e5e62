//! Names the error of every command.

/// Says in one sentence, for the person who called a command, why it could not be done.
pub(crate) type Failure = String;
