//! Copies bytes over one TCP connection, as a measure of what a link gives.

use std::{
    io::{self, Read, Write},
    net::{TcpListener, TcpStream},
    time::Instant,
};

const BUFFER_LEN: usize = 64 * 1024;

/// Sends `len` bytes to the first who connects.
pub(crate) fn send(address: &str, len: usize) -> io::Result<()> {
    let listener = TcpListener::bind(address)?;
    println!("{}", serde_json::json!({ "address": address }));
    let (mut stream, _) = listener.accept()?;
    let buffer = [7; BUFFER_LEN];
    let mut left = len;
    while left > 0 {
        let count = left.min(BUFFER_LEN);
        stream.write_all(&buffer[..count])?;
        left -= count;
    }
    Ok(())
}

/// Takes all that comes, and says how long that was from the connection's begin.
pub(crate) fn receive(address: &str) -> io::Result<()> {
    let begin = Instant::now();
    let mut stream = TcpStream::connect(address)?;
    let mut buffer = [0; BUFFER_LEN];
    let mut received = 0;
    loop {
        match stream.read(&mut buffer)? {
            0 => break,
            count => received += count,
        }
    }
    let millis = begin.elapsed().as_millis() as u64;
    println!("{}", serde_json::json!({ "millis": millis, "received": received }));
    Ok(())
}
