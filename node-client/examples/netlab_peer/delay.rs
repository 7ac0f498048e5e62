//! Carries frames between two TAP devices, each so much later than it came. It stands in for netem, which not every
//! kernel has.

use std::{
    fs::{File, OpenOptions},
    io::{self, Read, Write},
    mem,
    os::fd::AsRawFd,
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Frames under way in one direction; more are dropped, as a router does: 100 Mb/s for 0.9 seconds.
const FRAMES_MAX: usize = 8_192;

/// The longest frame, with room.
const FRAME_LEN_MAX: usize = 65_536;

/// Carries frames both ways until the process is ended.
pub(crate) fn run(one: &str, other: &str, millis: u64) -> io::Result<()> {
    let (one, other) = (tap(one)?, tap(other)?);
    let delay = Duration::from_millis(millis);
    println!("{}", serde_json::json!({ "delay_millis": millis }));
    let back = (other.try_clone()?, one.try_clone()?);
    let back = thread::spawn(move || carry(back.0, back.1, delay));
    carry(one, other, delay)?;
    back.join().unwrap_or(Ok(()))
}

fn carry(mut from: File, mut to: File, delay: Duration) -> io::Result<()> {
    let (sender, receiver) = mpsc::sync_channel::<(Instant, Vec<u8>)>(FRAMES_MAX);
    thread::spawn(move || {
        for (due, frame) in receiver {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            // The device may be down yet; a lost frame is what networks do.
            let _ = to.write(&frame);
        }
    });
    let mut buffer = vec![0; FRAME_LEN_MAX];
    loop {
        let len = from.read(&mut buffer)?;
        let _ = sender.try_send((Instant::now() + delay, buffer[..len].to_vec()));
    }
}

/// Opens the TAP device of this name.
fn tap(name: &str) -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    // SAFETY: a structure of plain numbers, for which zero is a value.
    let mut request: libc::ifreq = unsafe { mem::zeroed() };
    // The last byte stays 0.
    let room = request.ifr_name.len() - 1;
    for (to, from) in request.ifr_name[..room].iter_mut().zip(name.bytes()) {
        *to = from as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // SAFETY: the kernel reads and writes the structure only, which lives until after the call.
    if unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(file)
}
