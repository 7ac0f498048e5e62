//! An S3-compatible store of a few objects in memory: a small server on loopback that speaks the
//! requests that are needed. Gauntlet's tests use it, too. Names under `public/` need no signature, as
//! those of a web server.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

/// Objects by bucket and name, and what is to go wrong.
#[derive(Default)]
pub(crate) struct Shelf {
    /// By bucket, `/` and name.
    pub(crate) objects: Mutex<BTreeMap<String, Vec<u8>>>,
    /// Requests so far.
    pub(crate) requests: AtomicUsize,
    /// Requests that are answered with 503.
    pub(crate) failures: AtomicUsize,
    /// Answers of which the first byte is flipped.
    pub(crate) lies: AtomicUsize,
    /// Whether ranges are answered with the whole object and 200, as simple web servers do.
    pub(crate) gives_whole: AtomicBool,
}

/// Takes one from a counter that is not zero.
fn take(counter: &AtomicUsize) -> bool {
    let taken = counter.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |n| n.checked_sub(1));
    taken.is_ok()
}

/// Serves until the process ends; the address.
pub(crate) fn serve(shelf: &Arc<Shelf>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let shelf = Arc::clone(shelf);
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let shelf = Arc::clone(&shelf);
            std::thread::spawn(move || while answer(stream.as_ref().unwrap(), &shelf).is_some() {});
        }
    });
    format!("http://{address}")
}

/// Answers one request of a connection; `None` at its end.
fn answer(mut stream: &TcpStream, shelf: &Shelf) -> Option<()> {
    let mut input = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if input.read_line(&mut line).ok()? == 0 {
            return None;
        }
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    shelf.requests.fetch_add(1, Ordering::SeqCst);
    let mut request = lines.first()?.split(' ');
    let (method, target) = (request.next()?, request.next()?);
    let is_signed = lines.iter().any(|l| l.to_lowercase().starts_with("authorization: aws4-hmac"));
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let objects = shelf.objects.lock().unwrap();
    let name = path.trim_start_matches('/').replace("%3D", "=").replace("%20", " ");
    let mut status = "200 OK";
    let mut headers = String::new();
    let is_allowed = is_signed || name.starts_with("public/");
    let body = if take(&shelf.failures) || !is_allowed {
        status = "503 Slow Down";
        Vec::new()
    } else if query.contains("list-type=2") {
        let prefix = query.split('&').find_map(|pair| pair.strip_prefix("prefix="));
        let prefix = prefix.unwrap_or("").replace("%2F", "/");
        list(&objects, &name, &prefix).into_bytes()
    } else if let Some(object) = objects.get(&name) {
        let range = lines.iter().find_map(|line| {
            let (header, value) = line.split_once(": ")?;
            let range = value.strip_prefix("bytes=")?.split_once('-')?;
            header.eq_ignore_ascii_case("range").then(|| {
                let end: usize = range.1.parse().unwrap();
                range.0.parse::<usize>().unwrap()..object.len().min(end + 1)
            })
        });
        let mut body = object.clone();
        let gives_whole = shelf.gives_whole.load(Ordering::SeqCst);
        if let Some(range) = range.filter(|_| !gives_whole) {
            status = "206 Partial Content";
            let (start, last) = (range.start, range.end - 1);
            headers += &format!("Content-Range: bytes {start}-{last}/{}\r\n", object.len());
            body = object[range].to_vec();
        }
        if method == "GET" && body.len() > 1 && take(&shelf.lies) {
            body[0] ^= 1;
        }
        body
    } else {
        status = "404 Not Found";
        Vec::new()
    };
    drop(objects);
    headers += &format!("Content-Length: {}\r\nETag: \"x\"\r\n", body.len());
    headers += "Last-Modified: Wed, 21 Oct 2015 07:28:00 GMT\r\n";
    let body = if method == "HEAD" { &[][..] } else { &body[..] };
    write!(stream, "HTTP/1.1 {status}\r\n{headers}\r\n").ok()?;
    stream.write_all(body).ok()
}

fn list(objects: &BTreeMap<String, Vec<u8>>, bucket: &str, prefix: &str) -> String {
    let contents = objects.iter().filter_map(|(name, object)| {
        let key = name.strip_prefix(bucket)?.strip_prefix('/')?;
        let size = object.len();
        key.starts_with(prefix).then(|| {
            format!(
                "<Contents><Key>{key}</Key><LastModified>2015-10-21T07:28:00.000Z</LastModified>\
                 <ETag>x</ETag><Size>{size}</Size></Contents>"
            )
        })
    });
    let contents: String = contents.collect();
    format!("<ListBucketResult><IsTruncated>false</IsTruncated>{contents}</ListBucketResult>")
}
