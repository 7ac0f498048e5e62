//! A window on the example runtimes, and the chapter that quotes them.

mod chain;
mod chapter;
mod update;
mod window;
