//! The kernels on the emulator, and the gates that they must pass.

mod attention;
mod layout;
mod probe;

mod expected;
mod measured;
